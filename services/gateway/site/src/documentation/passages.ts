/** Searches passages of a text, with any spelling of Persian letters. */

export interface Passage {
  /** The id of the section. */
  section: string;
  title: string;
  text: string;
  folded: string;
  element: Element;
  isHeading: boolean;
}

const SAME: Record<string, string> = { ي: "ی", ى: "ی", ك: "ک", ة: "ه", ۀ: "ه", أ: "ا", إ: "ا", آ: "ا", ؤ: "و", ئ: "ی" };

/** Normalizes text for comparison: no vowel signs and joiners, one form of each letter, Latin digits, lower case. */
export function folded(text: string): string {
  return text
    .normalize("NFKC")
    .replace(/[\u064b-\u0655\u0670\u0640]/g, "")
    .replace(/[\u200c\u200d]/g, " ")
    .replace(/[يىكةۀأإآؤئ]/g, (letter) => SAME[letter] ?? letter)
    .replace(/[۰-۹]/g, (digit) => String(digit.charCodeAt(0) - 0x6f0))
    .replace(/[٠-٩]/g, (digit) => String(digit.charCodeAt(0) - 0x660))
    .replace(/\s+/g, " ")
    .toLowerCase();
}

/** Returns the passages that contain every word of the query, headings first; all headings for an empty query. */
export function passagesMatching<P extends { folded: string; isHeading: boolean }>(passages: P[], query: string): P[] {
  const words = folded(query).split(" ").filter(Boolean);
  const matching = passages.filter((passage) =>
    words.length === 0 ? passage.isHeading : words.every((word) => passage.folded.includes(word)),
  );
  return [...matching.filter((passage) => passage.isHeading), ...matching.filter((passage) => !passage.isHeading)];
}
