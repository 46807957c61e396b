/** The fields of a request or a response, with those of their objects inside. */
import { lastOf, plain, type Schema, text, typeOf } from "./reference.ts";
import type { Words } from "./words.ts";

/** Objects within objects that are shown in place. Deeper ones are links to their sections. */
const DEPTH = 2;

/** Renders the fields of a schema; those of objects in it are shown by a click. */
export function nestedFields(schema: Schema, schemas: Record<string, Schema>, words: Words): string {
  return fields(schema, schemas, words, []);
}

function fields(schema: Schema, schemas: Record<string, Schema>, words: Words, path: string[]): string {
  const properties = resolved(schema, schemas).properties ?? {};
  const required = resolved(schema, schemas).required ?? [];
  const items = Object.entries(properties).map(([name, property]) => {
    const isRequired = required.includes(name) ? `<span class="required">${words.required}</span>` : "";
    const description = property.description ? `<p>${text(property.description)}</p>` : "";
    const inner = objectsOf(property)
      .map((object) => innerFields(object, schemas, words, path))
      .join("");
    const type = `<span class="type" dir="ltr">${typeOf(property)}</span>`;
    return `<li><p><code dir="ltr">${name}</code> ${type} ${isRequired}</p>
      ${description}${inner}</li>`;
  });
  return `<ul class="properties">${items.join("")}</ul>`;
}

function innerFields(schema: Schema, schemas: Record<string, Schema>, words: Words, path: string[]): string {
  const name = schema.$ref ? lastOf(schema.$ref) : "";
  if (!resolved(schema, schemas).properties || path.length === DEPTH || path.includes(name)) return "";
  const list = fields(schema, schemas, words, [...path, name]);
  return `<details><summary dir="ltr">${name || kindOf(schema)}</summary>${list}</details>`;
}

/** Returns what tells an object without a name from its alternatives: the first of the values of `type`. */
function kindOf(schema: Schema): string {
  const [kind, another] = schema.properties?.type?.enum ?? [];
  if (!kind) return plain(typeOf(schema));
  return text(another ? `${kind}, …` : kind);
}

/** Returns the objects that the values of a property are, or consist of. */
function objectsOf(schema: Schema): Schema[] {
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (alternatives) return alternatives.flatMap(objectsOf);
  if (schema.items) return objectsOf(schema.items);
  return schema.$ref || schema.properties ? [schema] : [];
}

function resolved(schema: Schema, schemas: Record<string, Schema>): Schema {
  return schema.$ref ? (schemas[lastOf(schema.$ref)] ?? {}) : schema;
}
