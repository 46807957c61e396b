import assert from "node:assert/strict";
import { test } from "node:test";
import { withClosedMarks } from "../src/markdown/close-marks.ts";
import { toHtml } from "../src/markdown/parse.ts";

const CASES: [string, string][] = [
  ["plain text", "plain text"],
  ["این **ضبط", "این **ضبط**"],
  ["این **", "این "],
  ["a *b **c", "a *b **c***"],
  ["a **b** c", "a **b** c"],
  ["x `code", "x `code`"],
  ["x `**` y", "x `**` y"],
  ["x `", "x "],
  ["- item\n* other", "- item\n* other"],
  ["2 * 3", "2 * 3"],
  ["see [the page](https://exa", "see the page"],
  ["see [the pa", "see the pa"],
  ["**one**\n\nand ~~two", "**one**\n\nand ~~two~~"],
];

for (const [growing, closed] of CASES)
  test(`${JSON.stringify(growing)} is displayed without open marks`, () => {
    assert.equal(withClosedMarks(growing), closed);
  });

test("no mark of a growing sentence is ever displayed as characters", () => {
  const text = "یک **متن پررنگ** و *کج* و `کد` و ~~خط‌خورده~~ و [پیوند](https://example.org/a) تمام.";
  for (let end = 1; end <= text.length; end++) {
    const shown = toHtml(withClosedMarks(text.slice(0, end))).replace(/<[^>]*>/g, "");
    assert.doesNotMatch(shown, /[*~`[\]]/, text.slice(0, end));
  }
});
