import { readFileSync } from "node:fs";
import { codeBlock, escapeHtml, type Heading } from "./markdown.ts";
import type { Words } from "./words.ts";

interface Schema {
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
  parameters?: { name: string; description: string; schema: Schema }[];
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
      sections.push(renderOperation(method, path, operation, components.responses, words));
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
  shared: Record<string, DocumentedResponse>,
  words: Words,
): string {
  const parameters: Schema = {
    properties: Object.fromEntries(
      (operation.parameters ?? []).map(({ name, description, schema }) => [name, { ...schema, description }]),
    ),
    required: (operation.parameters ?? []).map(({ name }) => name),
  };
  const { requestBody } = operation;
  const responses = Object.entries(operation.responses).map(([status, response]) => {
    const { description, content } = response.$ref ? (shared[lastOf(response.$ref)] as DocumentedResponse) : response;
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
    ${requestBody ? `<h3>${words.requestBody}</h3><p>${contentTypes(requestBody.content)}</p>` : ""}
    ${examples(requestBody, words)}
    <h3>${words.responses}</h3>
    <div class="table" tabindex="0" role="group" aria-label="${words.responses}">
      <table><tbody>${responses.join("")}</tbody></table>
    </div>
    ${examples(operation.responses["200"], words)}
  </section>`;
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

function typeOf(schema: Schema): string {
  if (schema.$ref) return `<a href="#${lastOf(schema.$ref)}" dir="ltr">${lastOf(schema.$ref)}</a>`;
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (alternatives) return alternatives.map(typeOf).join(" | ") + bounds(schema);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ") + bounds(schema);
  if (schema.const) return `"${schema.const}"`;
  const types = [schema.type ?? "any"].flat();
  const names = types.map((type) => (type === "array" && schema.items ? `array of ${typeOf(schema.items)}` : type));
  return names.join(" | ") + bounds(schema);
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

function text(source: string): string {
  return escapeHtml(source).replace(/`([^`]+)`/g, '<code dir="ltr">$1</code>');
}

function lastOf(reference: string): string {
  return reference.slice(reference.lastIndexOf("/") + 1);
}

function inLanguage(node: unknown, language: "fa" | "en"): unknown {
  if (Array.isArray(node)) return node.map((item) => inLanguage(item, language));
  if (node === null || typeof node !== "object") return node;
  const entries = Object.entries(node);
  if (entries.length === 2 && "fa" in node && "en" in node) return node[language];
  return Object.fromEntries(entries.map(([key, value]) => [key, inLanguage(value, language)]));
}
