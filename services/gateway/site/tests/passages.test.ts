import assert from "node:assert/strict";
import { test } from "node:test";
import { folded, passagesMatching } from "../src/documentation/passages.ts";

test("Persian is found however it is typed", () => {
  const text = folded("پاسخ تکه‌تکه از ۲۰۴۸ توکن؛ می‌آید");
  for (const query of ["توكن", "2048", "تکه تکه", "مي آيد", "تکه‌تکه"]) {
    assert.ok(text.includes(folded(query)), query);
  }
});

test("headings come before text", () => {
  const found = passagesMatching(
    [
      { folded: "a text about keys", isHeading: false },
      { folded: "keys", isHeading: true },
    ],
    "keys",
  );
  assert.deepEqual(
    found.map((passage) => passage.isHeading),
    [true, false],
  );
});
