/** Code with its parts marked. The highlighter is loaded when the first code is displayed: most visits show none. */
import { sanitized } from "./sanitize.ts";

let highlighter: typeof import("./highlighter.ts") | undefined;

/** Displays code in an element, at first as plain text if the highlighter is still to be loaded. */
export function showCode(element: HTMLElement, code: string, language: string): void {
  if (highlighter) {
    mark(element, code, language);
    return;
  }
  element.textContent = code;
  import("./highlighter.ts").then(
    (loaded) => {
      highlighter = loaded;
      // What still grows is displayed again with its next token, and may have other text by now.
      if (!element.closest(".tail") && element.textContent === code) mark(element, code, language);
    },
    // Plain text remains.
    () => undefined,
  );
}

function mark(element: HTMLElement, code: string, language: string): void {
  const html = highlighter?.highlighted(code, language);
  if (html === undefined) element.textContent = code;
  else element.replaceChildren(sanitized(html));
}
