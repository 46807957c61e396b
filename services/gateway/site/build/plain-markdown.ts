/** The pages as Markdown, for language models and for readers who copy them. */
import { readFileSync } from "node:fs";
import { FILLED, LANGUAGES, readExample } from "./markdown.ts";
import { openApi, type Schema, typeText } from "./reference.ts";
import type { Words } from "./words.ts";

/** Returns the documentation in one language with its examples in place, under a heading of its own. */
export function documentationAsMarkdown(words: Words): string {
  const source = readFileSync(`content/${words.language}.md`, "utf8")
    .replace(/^@example (\S+)$/gm, (_, name: string) =>
      LANGUAGES.map(({ id, suffix }) => fence(readExample(`${name}.${suffix}`, words), id)).join("\n\n"),
    )
    .replace(/^@models$/gm, `\`GET ${FILLED.__BASE_URL__}/models\``)
    .replace(/^```(\S+) file=(\S+)\n```$/gm, (_, language: string, file: string) =>
      fence(readExample(file, words), language),
    )
    .replace(/^(#+ .*?)\s*\{#[\w-]+\}$/gm, "$1");
  return `# ${words.title}\n\n${words.baseNote}\n\n${filled(source)}`;
}

/** Returns the changes of the API in one language. */
export function changesAsMarkdown(words: Words): string {
  const source = readFileSync(`content/changes.${words.language}.md`, "utf8");
  return `# ${words.changes}\n\n${source.replace(/^(#+ .*?)\s*\{#[\w-]+\}$/gm, "$1")}`;
}

/** Returns the reference of the API in one language. */
export function referenceAsMarkdown(words: Words): string {
  const { paths, components } = openApi(words.language);
  const parts = [`# ${words.reference}`, words.baseNote];
  for (const [path, methods] of Object.entries(paths))
    for (const [method, operation] of Object.entries(methods)) {
      parts.push(`## ${operation.summary}`, `\`${method.toUpperCase()} ${FILLED.__BASE_URL__}${path}\``);
      if (operation.description) parts.push(operation.description);
      for (const { name, description } of operation.parameters ?? []) parts.push(`- \`${name}\`: ${description}`);
      for (const content of [operation.requestBody?.content, operation.responses["200"]?.content])
        for (const [type, { schema, examples }] of Object.entries(content ?? {})) {
          parts.push(`\`${type}\`: ${typeText(schema)}`);
          const [example] = Object.values(examples ?? {});
          if (example) parts.push(fence(JSON.stringify(example.value, null, 2), "json"));
        }
    }
  for (const [name, schema] of Object.entries(components.schemas)) parts.push(`## ${name}`, properties(schema));
  return `${parts.join("\n\n")}\n`;
}

/** Returns the index of the pages in Markdown, by the convention of llmstxt.org. */
export function llmsTxt(words: Words): string {
  return `# Vilix

> ${words.description}

${words.baseNote}

- [${words.documentation}](en.md)
- [${words.reference}](api/docs.en.md)
- [${words.changes}](api/changes.en.md)
- [OpenAPI](api/openapi.json)
- [مستندات به فارسی](fa.md)
`;
}

function properties(schema: Schema): string {
  if (!schema.properties) return typeText(schema);
  return Object.entries(schema.properties)
    .map(([name, property]) => `- \`${name}\` (${typeText(property)}): ${property.description ?? ""}`.trimEnd())
    .join("\n");
}

function fence(text: string, language: string): string {
  return `\`\`\`${language}\n${filled(text.trimEnd())}\n\`\`\``;
}

function filled(text: string): string {
  return text.replace(/__[A-Z]+(?:_[A-Z]+)*__/g, (name) => FILLED[name] ?? name);
}
