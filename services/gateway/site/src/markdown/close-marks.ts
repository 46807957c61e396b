/** Closes the inline marks that are open at the end of a growing text, so that they do not flash as characters. */

const INLINE_CODE = /(`+)(?:(?!\1)[\s\S])*?[^`]\1(?!`)/g;

/** Returns Markdown whose last paragraph has no open bold, italic, struck out, code or link. */
export function withClosedMarks(growing: string): string {
  const start = Math.max(growing.lastIndexOf("\n\n"), 0);
  const paragraph = growing.slice(start);
  // Marks in inline code are characters.
  const text = paragraph.replace(INLINE_CODE, (code) => "x".repeat(code.length));
  const openCode = /(`+)[^`]*$/.exec(text);
  if (openCode) {
    const [tail, ticks = ""] = openCode;
    if (tail === ticks) return growing.slice(0, growing.length - ticks.length);
    return growing + ticks;
  }
  const link = /(?<!\S)!?\[([^\]\n]*)(?:\](?:\([^)\n]*)?)?$/.exec(text);
  if (link && link[1] !== undefined) {
    const at = start + link.index;
    return `${withClosedMarks(growing.slice(0, at))}${growing.slice(at).replace(/^!?\[/, "").slice(0, link[1].length)}`;
  }
  const open: string[] = [];
  for (const { 0: mark, index } of text.matchAll(/\*\*|~~|\*/g)) {
    const last = open.lastIndexOf(mark);
    if (last >= 0) open.splice(last);
    // A mark before a space opens nothing: it is a list's bullet, or a multiplication.
    else if (!/^\s/.test(text.slice(index + mark.length))) open.push(mark);
  }
  // Half of a mark may come first.
  let body = /(?<!~)~$/.test(growing) ? growing.slice(0, -1) : growing;
  // A mark without text would be shown as it is.
  for (let mark = open.at(-1); mark && body.endsWith(mark); mark = open.at(-1)) {
    body = body.slice(0, -mark.length);
    open.pop();
  }
  return open.length === 0 ? body : body.trimEnd() + open.reverse().join("");
}
