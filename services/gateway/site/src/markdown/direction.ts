/** The direction of text. The first letter alone would be wrong for Persian that begins with an English word. */

export type Direction = "rtl" | "ltr";

const LETTER = /\p{L}/gu;
const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}]/u;
const ENOUGH_IF_FIRST = 0.15;
const ENOUGH = 0.4;
const READ = 600;

/** Returns the direction of a text, or `fallback` if it has no letters. */
export function directionOf(text: string, fallback: Direction): Direction {
  const letters = text.slice(0, READ).match(LETTER);
  if (letters === null) return fallback;
  const isRightToLeft = letters.map((letter) => RIGHT_TO_LEFT.test(letter));
  const share = isRightToLeft.filter(Boolean).length / letters.length;
  return share >= (isRightToLeft[0] ? ENOUGH_IF_FIRST : ENOUGH) ? "rtl" : "ltr";
}

/** Sets the direction of every block of rendered Markdown. A list and a table have one direction as a whole. */
export function setDirections(root: ParentNode, fallback: Direction): void {
  for (const block of root.querySelectorAll<HTMLElement>("p, h1, h2, h3, h4, h5, h6, ul, ol, table, blockquote")) {
    const isInside = block.parentElement?.closest("li, td");
    if (!isInside) block.dir = directionOf(proseOf(block), fallback);
    if (block.tagName === "P" && block.querySelector(":scope > br")) setLineDirections(block);
  }
  for (const cell of root.querySelectorAll<HTMLElement>("td, th")) {
    const table = cell.closest("table");
    cell.dir = directionOf(proseOf(cell), table?.dir === "rtl" ? "rtl" : "ltr");
  }
  for (const code of root.querySelectorAll<HTMLElement>("pre, code")) code.dir = "ltr";
}

/** Turns each line of a paragraph into a block if the directions of its lines differ. */
function setLineDirections(paragraph: HTMLElement): void {
  const lines: HTMLElement[] = [document.createElement("span")];
  for (const node of [...paragraph.childNodes]) {
    if (node.nodeName === "BR") lines.push(document.createElement("span"));
    else lines.at(-1)?.append(node.cloneNode(true));
  }
  const whole = paragraph.dir === "ltr" ? "ltr" : "rtl";
  for (const line of lines) line.dir = directionOf(proseOf(line), whole);
  if (lines.every((line) => line.dir === whole)) return;
  for (const line of lines) line.className = "line";
  paragraph.replaceChildren(...lines);
}

function proseOf(block: Element): string {
  if (!block.querySelector("code, pre")) return block.textContent ?? "";
  const copy = block.cloneNode(true) as Element;
  for (const code of copy.querySelectorAll("code, pre")) code.remove();
  return copy.textContent ?? "";
}
