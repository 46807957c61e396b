/** Numbers as people type them: with Latin, Persian or Arabic digits. */

/** Returns `text` with Latin digits. */
export function withLatinDigits(text: string): string {
  return text
    .replace(/[۰-۹]/g, (digit) => String(digit.charCodeAt(0) - 0x6f0))
    .replace(/[٠-٩]/g, (digit) => String(digit.charCodeAt(0) - 0x660));
}

/** Returns the positive whole number that a text consists of, in any digits; undefined for any other text. */
export function wholeNumber(text: string): number | undefined {
  const digits = withLatinDigits(text).replace(/[\s,٬]/g, "");
  const value = /^\d{1,9}$/.test(digits) ? Number(digits) : 0;
  return value > 0 ? value : undefined;
}
