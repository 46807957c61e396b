/** Searches passages of a text, with any spelling of Persian letters. */
import { withLatinDigits } from "../digits.ts";
import { synonyms } from "./synonyms.ts";

export interface Passage {
  /** The id of the section. */
  section: string;
  title: string;
  text: string;
  folded: string;
  isHeading: boolean;
  /** The passage's element, or the URL of the page that has it. */
  place: Element | string;
}

const SAME: Record<string, string> = { ي: "ی", ى: "ی", ك: "ک", ة: "ه", ۀ: "ه", أ: "ا", إ: "ا", آ: "ا", ؤ: "و", ئ: "ی" };

/** Normalizes text for comparison: no vowel signs and joiners, one form of each letter, Latin digits, lower case. */
export function folded(text: string): string {
  return withLatinDigits(text)
    .normalize("NFKC")
    .replace(/[\u064b-\u0655\u0670\u0640]/g, "")
    .replace(/[\u200c\u200d]/g, " ")
    .replace(/[يىكةۀأإآؤئ]/g, (letter) => SAME[letter] ?? letter)
    .replace(/\s+/g, " ")
    .toLowerCase();
}

/** Groups of words with the same meaning, as they are compared. */
const GROUPS = synonyms().map((group) => group.map(folded));
const MOST_WORDS = Math.max(...GROUPS.flat().map((phrase) => phrase.split(" ").length));

/** Returns for each word or known phrase of a query the texts of which a passage must contain one. */
export function alternatives(query: string): string[][] {
  const words = folded(query).trim().split(" ").filter(Boolean);
  const units: string[][] = [];
  while (words.length > 0) {
    let length = Math.min(MOST_WORDS, words.length);
    while (length > 1 && !groupsOf(words.slice(0, length).join(" ")).length) length--;
    const phrase = words.splice(0, length).join(" ");
    units.push([phrase, ...groupsOf(phrase).flat()]);
  }
  return units;
}

function groupsOf(phrase: string): string[][] {
  const joined = withoutSpaces(phrase);
  return GROUPS.filter((group) => group.some((word) => withoutSpaces(word) === joined));
}

const SHORT = /^[a-z]{1,3}$/;

function wordsOf(text: string): string[] {
  return text.split(/[^a-z]+/);
}

function withoutSpaces(text: string): string {
  return text.replaceAll(" ", "");
}

/**
 * Returns the passages that contain every word of the query or a synonym of it, with or without spaces: first those
 * with the words themselves, and headings before text. For an empty query it returns all headings.
 */
export function passagesMatching<P extends { folded: string; isHeading: boolean }>(passages: P[], query: string): P[] {
  const units = alternatives(query);
  if (units.length === 0) return passages.filter((passage) => passage.isHeading);
  const ranked: { passage: P; rank: number }[] = [];
  for (const passage of passages) {
    const joined = withoutSpaces(passage.folded);
    const has = (word: string) =>
      passage.folded.includes(word) || (word.length > 3 && joined.includes(withoutSpaces(word)));
    // A short synonym counts as a whole word alone: "ide" is no part of "provide". What is typed may be a beginning.
    const hasSynonym = (word: string) => (SHORT.test(word) ? wordsOf(passage.folded).includes(word) : has(word));
    if (!units.every(([word = "", ...others]) => has(word) || others.some(hasSynonym))) continue;
    const isLiteral = units.every(([word]) => word !== undefined && has(word));
    ranked.push({ passage, rank: (isLiteral ? 0 : 2) + (passage.isHeading ? 0 : 1) });
  }
  return ranked.sort((one, other) => one.rank - other.rank).map(({ passage }) => passage);
}
