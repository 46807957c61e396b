import { Marked, type Token } from "marked";
import { escapeHtml, highlight } from "./highlight.ts";

/** Tags that models write into Markdown; any other HTML is shown as the text that it is. */
const HARMLESS_TAG = /^<\/?(?:br|sub|sup|kbd|b|i|u|s|mark)\s*\/?>$/i;
const MATH = [/^\$\$[^$]+?\$\$/, /^\\\[[\s\S]+?\\\]/, /^\\\([\s\S]+?\\\)/, /^\$(?!\s)[^$\n]*?[^\s$]\$(?!\d)/];

const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  extensions: [
    {
      // Left readable: its underscores and backslashes are not Markdown's.
      name: "math",
      level: "inline",
      start: (text: string) => text.search(/\$|\\[([]/),
      tokenizer(text: string) {
        for (const form of MATH) {
          const raw = form.exec(text)?.[0];
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
      return `<pre><code class="hljs" title="${escapeHtml(language)}">${highlight(text, language)}</code></pre>`;
    },
    // Pictures from elsewhere would tell their host who reads, and what.
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** Markdown as HTML. It still has to be sanitised. */
export function toHtml(markdown: string): string {
  return marked.parse(markdown) as string;
}

/**
 * How much of a text that is still growing will not change any more: all blocks but the last.
 *
 * Only whole lines are looked at: what a line is can change until it ends.
 */
export function stableLength(growing: string): number {
  const whole = growing.slice(0, growing.lastIndexOf("\n") + 1);
  if (whole === "") return 0;
  const tokens = marked.lexer(whole);
  let last = tokens.length - 1;
  while (last > 0 && (tokens[last] as Token).type === "space") last--;
  return tokens.slice(0, Math.max(0, last)).reduce((length, token) => length + token.raw.length, 0);
}

/** The code block that a growing text consists of, if it is one that has not ended. */
export function openCode(growing: string): { language: string; code: string } | undefined {
  const opening = /^\s{0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n/.exec(growing);
  if (!opening) return undefined;
  const [head, fence = "", info = ""] = opening;
  const code = growing.slice(head.length);
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`, "m");
  return closing.test(code) ? undefined : { language: info.trim().split(/\s/)[0] ?? "", code };
}
