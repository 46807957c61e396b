import { readFileSync } from "node:fs";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import nginx from "highlight.js/lib/languages/nginx";
import python from "highlight.js/lib/languages/python";
import { Marked } from "marked";
import type { Words } from "./words.ts";

export interface Heading {
  id: string;
  text: string;
}

/** The initial texts of placeholders. The page replaces them by its own URL and models if scripts run. */
export const FILLED: Record<string, string> = {
  __BASE_URL__: "https://HOST/api",
  __MODEL__: "qwen3-14b",
  __REASONING_MODEL__: "qwen3-14b",
  __STRUCTURED_MODEL__: "qwen3-14b",
  __TOOLS_MODEL__: "qwen3-14b",
  __VISION_MODEL__: "qwen3-vl",
  __EMBEDDING_MODEL__: "qwen3-embedding-0.6b",
};
export const LANGUAGES = [
  { id: "python", name: "Python", suffix: "py" },
  { id: "javascript", name: "JavaScript", suffix: "mjs" },
  { id: "bash", name: "cURL", suffix: "sh" },
];

for (const [name, language] of Object.entries({ bash, javascript, json, nginx, python })) {
  hljs.registerLanguage(name, language);
}

/** Renders the documentation in one language: sections with anchors, and examples with tabs by programming language. */
export function renderDocumentation(source: string, words: Words): { html: string; headings: Heading[] } {
  const headings: Heading[] = [];
  const marked = new Marked({ gfm: true });
  marked.use({
    extensions: [
      {
        name: "directive",
        level: "block",
        start: (text: string) => text.match(/^@/m)?.index,
        tokenizer(text: string) {
          const match = /^@(example|models)(?: (\S+))?\n/.exec(text);
          return match ? { type: "directive", raw: match[0], kind: match[1], name: match[2] } : undefined;
        },
        renderer: (token) => (token.kind === "models" ? modelsPlaceholder(words) : example(String(token.name), words)),
      },
    ],
    renderer: {
      heading({ tokens, depth }) {
        const [, text = "", id = ""] = /^(.*?)\s*\{#([\w-]+)\}$/.exec(this.parser.parseInline(tokens)) ?? [];
        if (depth === 2) headings.push({ id, text });
        return `<h${depth} id="${id}"><a class="anchor" href="#${id}">${text}</a></h${depth}>`;
      },
      code({ text, lang = "" }) {
        const [language = "text", file] = lang.split(" file=");
        return codeBlock(file ? readExample(file, words) : text, language, words, file);
      },
      codespan: ({ text }) => `<code dir="ltr">${fill(escapeHtml(text))}</code>`,
      table(token) {
        const row = (cells: typeof token.header, tag: string) =>
          cells.map((cell) => `<${tag}>${this.parser.parseInline(cell.tokens)}</${tag}>`).join("");
        const isHeadless = token.header.every((cell) => cell.text === "");
        const head = isHeadless ? "" : `<thead><tr>${row(token.header, "th")}</tr></thead>`;
        const body = token.rows.map((cells) => `<tr>${row(cells, "td")}</tr>`).join("");
        return `<div class="table" tabindex="0" role="group" aria-label="${words.table}"><table${
          isHeadless ? ' class="facts"' : ""
        }>${head}<tbody>${body}</tbody></table></div>`;
      },
    },
  });
  const html = (marked.parse(source) as string)
    .split(/(?=<h2 )/)
    .map((section) => `<section>${section}</section>`)
    .join("\n");
  return { html, headings };
}

/** Renders an example with a tab per programming language. */
export function example(name: string, words: Words): string {
  const files = Object.fromEntries(LANGUAGES.map(({ id, suffix }) => [id, `${name}.${suffix}`]));
  return tabs(
    name,
    (id) => readExample(files[id] as string, words),
    words,
    (id) => files[id],
  );
}

/** Renders programs with a tab per programming language. `name` is unique on the page. */
export function tabs(
  name: string,
  program: (language: string) => string,
  words: Words,
  file: (language: string) => string | undefined = () => undefined,
): string {
  const buttons = LANGUAGES.map(
    ({ id, name: label }, index) =>
      `<button type="button" role="tab" id="tab-${name}-${id}" aria-controls="panel-${name}-${id}"` +
      ` data-language="${id}" aria-selected="${index === 0}"${index === 0 ? "" : ' tabindex="-1"'}>${label}</button>`,
  );
  const panels = LANGUAGES.map(
    ({ id }, index) =>
      `<div role="tabpanel" id="panel-${name}-${id}" aria-labelledby="tab-${name}-${id}" data-language="${id}"${
        index === 0 ? "" : " hidden"
      }>${pre(program(id), id, file(id))}</div>`,
  );
  return `<div class="code-block examples"><div class="code-bar"><div role="tablist" aria-label="${
    words.exampleLanguage
  }" dir="ltr">${buttons.join("")}</div>${copyButton(words)}</div>${panels.join("")}</div>`;
}

export function codeBlock(text: string, language: string, words: Words, file?: string): string {
  return `<div class="code-block"><div class="code-bar"><span dir="ltr">${file ?? language}</span>${copyButton(
    words,
  )}</div>${pre(text, language, file)}</div>`;
}

function pre(text: string, language: string, file?: string): string {
  const source = text.trimEnd();
  const html = hljs.getLanguage(language) ? hljs.highlight(source, { language }).value : escapeHtml(source);
  const name = file ? ` data-file="${file}"` : "";
  return `<pre dir="ltr" tabindex="0"${name}><code>${fill(html)}</code></pre>`;
}

function copyButton(words: Words): string {
  return `<button type="button" class="copy" data-copy data-done="${words.copied}">${words.copy}</button>`;
}

function modelsPlaceholder(words: Words): string {
  return `<div class="models" id="model-list" aria-live="polite" aria-busy="true">
    <p class="quiet">${words.modelsLoading}</p>
  </div>`;
}

/** Reads an example, and keeps one side of each `{{Persian||English}}`. */
export function readExample(file: string, words: Words): string {
  const text = readFileSync(`content/examples/${file}`, "utf8");
  return text.replace(/\{\{(.*?)\|\|(.*?)\}\}/g, words.language === "fa" ? "$1" : "$2");
}

function fill(html: string): string {
  return html.replace(/__[A-Z]+(?:_[A-Z]+)*__/g, (name) => {
    const initial = FILLED[name];
    if (initial === undefined) throw new Error(`unknown placeholder ${name}`);
    return `<span data-fill="${name.replaceAll("__", "").toLowerCase()}">${initial}</span>`;
  });
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
