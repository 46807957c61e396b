/** The page's language, and numbers in its digits. */

export type Language = "fa" | "en";

export const language: Language = document.documentElement.lang === "en" ? "en" : "fa";

const LOCALE = { fa: "fa-IR", en: "en-US" }[language];

/** A number for people; code has its own digits. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString(LOCALE, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** A time of day. */
export function clock(time: number): string {
  return new Date(time).toLocaleTimeString(LOCALE, { hour: "2-digit", minute: "2-digit" });
}
