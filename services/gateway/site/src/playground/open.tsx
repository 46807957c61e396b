import { render } from "preact";
import { receiveLinkedKeys } from "../key-link.ts";
import "../style/playground.css";
import { followModels, keepConversation, key, offerKey, useKey } from "./store.ts";
import { Playground } from "./views/playground.tsx";

/** Shows the playground in `place`. */
export function open(place: HTMLElement): void {
  place.replaceChildren();
  render(<Playground />, place);
  if (key.value) void useKey(key.value);
  receiveLinkedKeys(offerKey);
  followModels();
  keepConversation();
}
