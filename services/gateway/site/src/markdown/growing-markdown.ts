import { withClosedMarks } from "./close-marks.ts";
import { type Direction, setDirections } from "./direction.ts";
import { showCode } from "./highlight.ts";
import { openCode, stableLength, toHtml } from "./parse.ts";
import { sanitized } from "./sanitize.ts";

/** A longer block is displayed as plain text until it ends, because parsing it for every token would block the page. */
const MOST_PARSED = 16_000;

export interface CodeLabels {
  copy: string;
  copied: string;
}

/**
 * Displays Markdown that grows at its end. Blocks that cannot change any more are rendered once, and only the last one
 * is rendered again, so that the cost of a token does not depend on the length of the text.
 */
export class GrowingMarkdown {
  readonly #container: HTMLElement;
  readonly #tail = document.createElement("div");
  readonly #labels: CodeLabels;
  readonly #fallback: Direction;
  readonly #onStable: (text: string) => void;
  #stable = 0;
  #text = "";
  #raw: { from: number; node: Text } | undefined;

  constructor(container: HTMLElement, labels: CodeLabels, fallback: Direction, onStable: (text: string) => void) {
    this.#container = container;
    this.#labels = labels;
    this.#fallback = fallback;
    this.#onStable = onStable;
    this.#tail.className = "tail";
    container.replaceChildren(this.#tail);
  }

  /** Displays `text`, which begins with the text of the previous update. */
  update(text: string, isComplete: boolean): void {
    if (text === this.#text && !isComplete) return;
    this.#text = text;
    if (isComplete) this.#commit(text.length);
    else if (this.#raw) this.#growRaw(text);
    else this.#grow(text);
  }

  #grow(text: string): void {
    const stable = stableLength(text.slice(this.#stable));
    if (stable > 0) this.#commit(this.#stable + stable);
    const growing = text.slice(this.#stable);
    const open = openCode(growing);
    if (open && open.code.length > 2_000) {
      this.#show(`${growing.trimEnd()}\n`);
      const code = this.#tail.querySelector("code");
      if (code) this.#startRaw(code, text);
    } else if (!open && growing.length > MOST_PARSED) {
      this.#show(growing);
      const rest = document.createElement("p");
      this.#tail.append(rest);
      this.#startRaw(rest, text);
    } else {
      this.#show(open ? growing : withClosedMarks(growing));
    }
  }

  /** Starts to append text without rendering it, until its block ends. */
  #startRaw(parent: HTMLElement, text: string): void {
    const node = document.createTextNode("");
    parent.append(node);
    this.#raw = { from: text.length, node };
  }

  #growRaw(text: string): void {
    const raw = this.#raw;
    if (!raw) return;
    const added = text.slice(raw.from);
    raw.node.appendData(added);
    raw.from = text.length;
    // A block can end only at the end of a line.
    if (!added.includes("\n")) return;
    const growing = text.slice(this.#stable);
    if (openCode(growing) !== undefined) return;
    const isCode = /^\s{0,3}(?:```|~~~)/.test(growing);
    // An empty line does not end a list whose next item follows.
    const hasEnded = isCode || (/\n\s*\n\S/.test(growing) && stableLength(growing) > 0);
    if (!hasEnded) return;
    this.#raw = undefined;
    this.#grow(text);
  }

  #commit(end: number): void {
    const markdown = this.#text.slice(this.#stable, end);
    this.#raw = undefined;
    this.#stable = end;
    const nodes = this.#render(markdown);
    const words = nodes.textContent?.trim();
    this.#tail.before(nodes);
    this.#tail.replaceChildren();
    if (words) this.#onStable(words);
  }

  #show(markdown: string): void {
    this.#tail.replaceChildren(this.#render(markdown));
  }

  #render(markdown: string): DocumentFragment {
    const nodes = sanitized(toHtml(markdown));
    setDirections(nodes, this.#container.closest<HTMLElement>("[dir]")?.dir === "ltr" ? "ltr" : this.#fallback);
    for (const block of nodes.querySelectorAll("pre")) frameCode(block, this.#labels);
    for (const table of nodes.querySelectorAll("table")) frameTable(table);
    return nodes;
  }
}

function frameCode(block: HTMLElement, labels: CodeLabels): void {
  const frame = document.createElement("div");
  frame.className = "code-block";
  const bar = document.createElement("div");
  bar.className = "code-bar";
  const language = document.createElement("span");
  const code = block.querySelector("code");
  language.textContent = code?.title || "text";
  language.dir = "ltr";
  if (code) showCode(code, code.textContent ?? "", code.title);
  code?.removeAttribute("title");
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy";
  copy.dataset.copy = "";
  copy.dataset.done = labels.copied;
  copy.textContent = labels.copy;
  bar.append(language, copy);
  block.tabIndex = 0;
  block.replaceWith(frame);
  frame.append(bar, block);
}

function frameTable(table: HTMLElement): void {
  const frame = document.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}
