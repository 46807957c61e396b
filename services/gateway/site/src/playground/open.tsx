import { render } from "preact";
import "../style/playground.css";
import { key, loadModels, useKey } from "./store.ts";
import { Playground } from "./views/playground.tsx";

/** Shows the playground in `place`. */
export async function open(place: HTMLElement): Promise<void> {
  place.replaceChildren();
  render(<Playground />, place);
  if (key.value) void useKey(key.value);
  await loadModels();
}
