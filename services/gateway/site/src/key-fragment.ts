/** The key in the fragment of a link, as `vilix up` prints it: http://127.0.0.1:8000/#key=vlx_… */

const PREFIX = "#key=";
const KEY = /^vlx_[0-9A-Za-z]+$/;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** Whether a fragment is meant to bring a key. */
export function bringsKey(hash: string): boolean {
  return hash.startsWith(PREFIX);
}

/**
 * Returns the key of a fragment, or an empty string if there is none.
 *
 * Only pages of this machine accept it: elsewhere, a link could have a visitor use the key of somebody else, who would
 * then see the visitor's usage.
 */
export function keyOf(hash: string, hostname: string): string {
  const key = bringsKey(hash) ? hash.slice(PREFIX.length) : "";
  return KEY.test(key) && LOOPBACK.test(hostname) ? key : "";
}
