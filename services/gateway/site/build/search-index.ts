/** The passages of a rendered page, for the search from other pages. */
import type { Heading } from "./markdown.ts";

export interface IndexedPassage {
  /** The id of the section. */
  section: string;
  title: string;
  text: string;
}

/** Returns the headings, paragraphs, items, rows and code of a rendered page. */
export function passagesOf(html: string, headings: Heading[]): IndexedPassage[] {
  const passages: IndexedPassage[] = [];
  for (const part of html.split(/(?=<h2 id=")/)) {
    const section = /^<h2 id="([^"]+)"/.exec(part)?.[1];
    const heading = headings.find(({ id }) => id === section);
    if (section === undefined || heading === undefined) continue;
    const title = plain(heading.text);
    passages.push({ section, title, text: title });
    const body = part.replace(/^<h2[\s\S]*?<\/h2>/, "").replace(/<!--repeated-->[\s\S]*?<!--\/repeated-->/g, "");
    for (const [, tag, inner = ""] of body.matchAll(/<(p|li|tr|pre)\b[^>]*>([\s\S]*?)<\/\1>/g)) {
      const text = plain(tag === "tr" ? inner.replace(/<\/t[dh]>\s*<t[dh]/g, " — $&") : inner);
      if (text) passages.push({ section, title, text });
    }
  }
  return passages;
}

function plain(html: string): string {
  return html
    .replace(/<[^>]*>/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&")
    .replace(/\s+/g, " ")
    .trim();
}
