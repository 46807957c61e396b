import assert from "node:assert/strict";
import { test } from "node:test";
import { folded, passagesMatching } from "../src/documentation/passages.ts";

test("search finds Persian text with any spelling of its letters", () => {
  const text = folded("پاسخ تکه‌تکه از ۲۰۴۸ توکن؛ می‌آید");
  for (const query of ["توكن", "2048", "تکه تکه", "مي آيد", "تکه‌تکه"]) {
    assert.ok(text.includes(folded(query)), query);
  }
});

test("headings precede text in the results", () => {
  const results = passagesMatching(
    [
      { folded: "a text about keys", isHeading: false },
      { folded: "keys", isHeading: true },
    ],
    "keys",
  );
  assert.deepEqual(
    results.map((passage) => passage.isHeading),
    [true, false],
  );
});
