/** The page's language, and the formatting of numbers and times in it. */

export type Language = "fa" | "en";

export const language: Language = document.documentElement.lang === "en" ? "en" : "fa";

const LOCALE = { fa: "fa-IR", en: "en-US" }[language];

/** Formats a number for readers in the digits of the language. Code has Latin digits. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString(LOCALE, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** Formats a time of day. */
export function clock(time: number): string {
  return new Date(time).toLocaleTimeString(LOCALE, { hour: "2-digit", minute: "2-digit" });
}
