import { readFileSync } from "node:fs";
import { codeBlock, escapeHtml, type Heading, tabs } from "./markdown.ts";
import { nestedFields } from "./nested-fields.ts";
import { requestCode } from "./request-code.ts";
import { tryItForm } from "./try-it-form.ts";
import type { Words } from "./words.ts";

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  enum?: (string | null)[];
  const?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  maxLength?: number;
  required?: string[];
  properties?: Record<string, Schema>;
  additionalProperties?: Schema;
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
}
interface Content {
  content?: Record<string, { schema: Schema; examples: Record<string, { value: unknown }> }>;
}
interface DocumentedResponse extends Content {
  $ref?: string;
  description: string;
}
interface Operation {
  operationId: string;
  summary: string;
  description?: string;
  parameters?: { name: string; description: string; schema: Schema; example?: unknown }[];
  requestBody?: Content;
  responses: Record<string, DocumentedResponse>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema>; responses: Record<string, DocumentedResponse> };
}

/** The OpenAPI document, which `make openapi` generates, with its texts in one language. */
export function openApi(language: "fa" | "en" = "en"): Document {
  return inLanguage(JSON.parse(readFileSync("openapi.json", "utf8")), language) as Document;
}

/** Renders the OpenAPI document: a section per operation, then a section per object. */
export function renderReference(words: Words): { html: string; headings: Heading[] } {
  const { paths, components } = openApi(words.language);
  const headings: Heading[] = [];
  const sections: string[] = [];
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      headings.push({ id: operation.operationId, text: operation.summary });
      sections.push(renderOperation(method, path, operation, components, words));
    }
  }
  for (const [name, schema] of Object.entries(components.schemas)) {
    headings.push({ id: name, text: `<bdi dir="ltr">${name}</bdi>` });
    sections.push(
      `<section>
        <h2 id="${name}"><a class="anchor" href="#${name}" dir="ltr">${name}</a></h2>
        ${properties(schema, words)}
      </section>`,
    );
  }
  return { html: sections.join("\n"), headings };
}

function renderOperation(
  method: string,
  path: string,
  operation: Operation,
  { responses: shared, schemas }: Document["components"],
  words: Words,
): string {
  const parameters: Schema = {
    properties: Object.fromEntries(
      (operation.parameters ?? []).map(({ name, description, schema }) => [name, { ...schema, description }]),
    ),
    required: (operation.parameters ?? []).map(({ name }) => name),
  };
  const { requestBody } = operation;
  const parameterValues = Object.fromEntries(
    (operation.parameters ?? []).map(({ name, example }) => [name, String(example ?? "")]),
  );
  const body = firstExample(requestBody) as { [name: string]: never } | undefined;
  const programs = requestCode({ method, path, body, parameters: parameterValues });
  const success = operation.responses["200"];
  const failure = sharedResponse(operation.responses["4XX"], shared);
  const responses = Object.entries(operation.responses).map(([status, response]) => {
    const { description, content } = sharedResponse(response, shared) as DocumentedResponse;
    const cells = [`<code dir="ltr">${status}</code>`, text(description), contentTypes(content)];
    return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  return `<section>
    <h2 id="${operation.operationId}"><a class="anchor" href="#${operation.operationId}">${operation.summary}</a></h2>
    <p class="operation" dir="ltr">
      <b>${method.toUpperCase()}</b> <code><span data-fill="base_url">https://HOST/api</span>${path}</code>
    </p>
    ${operation.description ? `<p>${text(operation.description)}</p>` : ""}
    ${operation.parameters ? `<h3>${words.parameters}</h3>${properties(parameters, words)}` : ""}
    <h3>${words.request}</h3>
    ${tabs(operation.operationId, (language) => programs[language as keyof typeof programs], words)}
    ${inlineFields(requestBody?.content, words.requestBody, schemas, words)}
    ${tryItForm({ method, path, body, parameters: parameterValues }, words)}
    <h3>${words.responses}</h3>
    <div class="table" tabindex="0" role="group" aria-label="${words.responses}">
      <table><tbody>${responses.join("")}</tbody></table>
    </div>
    ${examples(success, words)}
    ${inlineFields(success?.content, words.responseBody, schemas, words)}
    <p>${words.errorExample} <a href="${words.language === "fa" ? "../" : "../en"}#errors">${words.errorList}</a></p>
    ${examples(failure, words)}
  </section>`;
}

function sharedResponse(
  response: DocumentedResponse | undefined,
  shared: Record<string, DocumentedResponse>,
): DocumentedResponse | undefined {
  return response?.$ref ? shared[lastOf(response.$ref)] : response;
}

/** Renders the fields of a JSON body, which a click shows. */
function inlineFields(
  content: Content["content"],
  title: string,
  schemas: Record<string, Schema>,
  words: Words,
): string {
  const schema = content?.["application/json"]?.schema;
  if (!schema) return "";
  // Its fields have sections of their own, which a search finds.
  const type = `<span class="type" dir="ltr">${plain(typeOf(schema))}</span>`;
  return `<!--repeated--><details class="fields"><summary>${title} ${type}</summary>
    ${nestedFields(schema, schemas, words)}</details><!--/repeated-->`;
}

function firstExample({ content = {} }: Content = {}): unknown {
  return Object.values(Object.values(content)[0]?.examples ?? {})[0]?.value;
}

/** Renders the first example of each content type. */
function examples({ content = {} }: Content = {}, words: Words): string {
  const values = Object.values(content).map(({ examples }) => Object.values(examples)[0]?.value);
  return values.map((value) => codeBlock(JSON.stringify(value, null, 2), "json", words)).join("");
}

function contentTypes(content: Content["content"] = {}): string {
  return Object.entries(content)
    .map(([type, { schema }]) => `<code dir="ltr">${type}</code> ${typeOf(schema)}`)
    .join("<br>");
}

function properties(schema: Schema, words: Words, depth = 0): string {
  if (schema.properties === undefined) return `<p>${typeOf(schema)}</p>`;
  const rows = Object.entries(schema.properties).map(([name, property]) => {
    const inner = property.properties ? property : property.items?.properties ? property.items : undefined;
    const isRequired = schema.required?.includes(name) ? `<span class="required">${words.required}</span>` : "";
    const type = `<span class="type" dir="ltr">${typeOf(property)}</span>`;
    return `<li><p><code dir="ltr">${name}</code> ${type} ${isRequired}</p>${
      property.description ? `<p>${text(property.description)}</p>` : ""
    }${inner ? properties(inner, words, depth + 1) : ""}</li>`;
  });
  return `<ul class="properties">${rows.join("")}</ul>`;
}

export function typeOf(schema: Schema): string {
  if (schema.$ref) return `<a href="#${lastOf(schema.$ref)}" dir="ltr">${lastOf(schema.$ref)}</a>`;
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (alternatives) return [...new Set(alternatives.map(typeOf))].join(" | ") + bounds(schema);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ") + bounds(schema);
  if (schema.const) return `"${schema.const}"`;
  const types = [schema.type ?? "any"].flat();
  const names = types.map((type) => (type === "array" && schema.items ? `array of ${typeOf(schema.items)}` : type));
  return names.join(" | ") + bounds(schema);
}

/** Returns the type of a schema as plain text. */
export function typeText(schema: Schema): string {
  return plain(typeOf(schema));
}

/** Removes the tags of a text. */
export function plain(html: string): string {
  return html.replace(/<[^>]*>/g, "");
}

function bounds({ minimum, maximum, maxLength, maxItems, default: preset }: Schema): string {
  const parts = [
    minimum !== undefined && maximum !== undefined
      ? `${minimum} … ${maximum}`
      : minimum !== undefined
        ? `≥ ${minimum}`
        : "",
    maxLength !== undefined ? `≤ ${maxLength} characters` : "",
    maxItems !== undefined ? `≤ ${maxItems} items` : "",
    preset !== undefined ? `= ${preset}` : "",
  ].filter(Boolean);
  return parts.length ? ` (${parts.join(", ")})` : "";
}

export function text(source: string): string {
  return escapeHtml(source).replace(/`([^`]+)`/g, '<code dir="ltr">$1</code>');
}

export function lastOf(reference: string): string {
  return reference.slice(reference.lastIndexOf("/") + 1);
}

function inLanguage(node: unknown, language: "fa" | "en"): unknown {
  if (Array.isArray(node)) return node.map((item) => inLanguage(item, language));
  if (node === null || typeof node !== "object") return node;
  const entries = Object.entries(node);
  if (entries.length === 2 && "fa" in node && "en" in node) return node[language];
  return Object.fromEntries(entries.map(([key, value]) => [key, inLanguage(value, language)]));
}
