/** The API key, which is kept for as long as the tab is open, and is never sent anywhere but to the API. */

const PLACE = "vilix-key";

/** Returns the key; empty without one. */
export function storedKey(): string {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return "";
  }
}

/** Keeps a key, or removes it if it is empty. */
export function storeKey(value: string): void {
  try {
    if (value) sessionStorage.setItem(PLACE, value);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // Without storage, the key lasts as long as the page.
  }
}

/** Returns what a visitor entered as a key: pasted headers are accepted, too. */
export function cleanKey(entered: string): string {
  return entered.trim().replace(/^(Authorization:\s*)?(Bearer\s+)?/i, "");
}
