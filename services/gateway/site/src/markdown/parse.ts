import { Marked, type Token } from "marked";
import { escapeHtml } from "./escape-html.ts";

/** HTML tags that models write in Markdown. Any other HTML is displayed as text. */
const HARMLESS_TAG = /^<\/?(?:br|sub|sup|kbd|b|i|u|s|mark)\s*\/?>$/i;
const MATH = [/^\$\$[^$]+?\$\$/, /^\\\[[\s\S]+?\\\]/, /^\\\([\s\S]+?\\\)/, /^\$(?!\s)[^$\n]*?[^\s$]\$(?!\d)/];

const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  extensions: [
    {
      // Math stays readable text: its underscores and backslashes are not Markdown.
      name: "math",
      level: "inline",
      start: (text: string) => text.search(/\$|\\[([]/),
      tokenizer(text: string) {
        for (const pattern of MATH) {
          const raw = pattern.exec(text)?.[0];
          if (raw) return { type: "math", raw };
        }
        return undefined;
      },
      renderer: (token) => `<code class="math">${escapeHtml(token.raw)}</code>`,
    },
  ],
  renderer: {
    html: ({ text }) => (HARMLESS_TAG.test(text.trim()) ? text : escapeHtml(text)),
    code: ({ text, lang = "" }) => {
      const language = lang.split(/\s/)[0] ?? "";
      return `<pre><code class="hljs" title="${escapeHtml(language)}">${escapeHtml(text)}</code></pre>`;
    },
    // Images from other hosts would reveal the reader to them.
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** Renders Markdown as HTML, which must still be sanitised. */
export function toHtml(markdown: string): string {
  return marked.parse(markdown) as string;
}

/**
 * Returns the length of the part of a growing text that cannot change any more: all blocks except the last one.
 *
 * Only complete lines count, because the meaning of a line can change until it ends.
 */
export function stableLength(growing: string): number {
  const whole = growing.slice(0, growing.lastIndexOf("\n") + 1);
  if (whole === "") return 0;
  const tokens = marked.lexer(whole);
  let last = tokens.length - 1;
  while (last > 0 && (tokens[last] as Token).type === "space") last--;
  return tokens.slice(0, Math.max(0, last)).reduce((length, token) => length + token.raw.length, 0);
}

/** Returns the code block that a growing text consists of, if it is a code block without an end. */
export function openCode(growing: string): { language: string; code: string } | undefined {
  const opening = /^\s{0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n/.exec(growing);
  if (!opening) return undefined;
  const [head, fence = "", info = ""] = opening;
  const code = growing.slice(head.length);
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`, "m");
  return closing.test(code) ? undefined : { language: info.trim().split(/\s/)[0] ?? "", code };
}
