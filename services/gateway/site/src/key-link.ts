/**
 * Takes the key out of the address. The page imports this module before all others, so that the key is gone from the
 * address and from the tab's history before anything else runs.
 */
import { bringsKey, keyOf } from "./key-fragment.ts";

let waiting = "";
let receive: ((key: string) => void) | undefined;

/** Calls `receiver` with the key of the link that opened the page, if there is one, and with those of later links. */
export function receiveLinkedKeys(receiver: (key: string) => void): void {
  receive = receiver;
  if (waiting) receiver(waiting);
  waiting = "";
}

function take(): void {
  const { hash, hostname, pathname, search } = location;
  if (!bringsKey(hash)) return;
  const key = keyOf(hash, hostname);
  // The playground is where a key is of use. Without one, the fragment is only removed.
  history.replaceState(history.state, "", `${pathname}${search}${key ? "#playground" : ""}`);
  if (!key) return;
  if (receive) receive(key);
  else waiting = key;
}

addEventListener("hashchange", take);
take();
