import assert from "node:assert/strict";
import { test } from "node:test";
import { wholeNumber, withLatinDigits } from "../src/digits.ts";

test("Persian and Arabic digits are digits", () => {
  assert.equal(withLatinDigits("۸۰ ٤٥ 6"), "80 45 6");
  assert.equal(wholeNumber("۸۰"), 80);
  assert.equal(wholeNumber(" ١٬٠٠٠ "), 1000);
});

test("only a positive whole number is one", () => {
  for (const text of ["", "۰", "-3", "1.5", "abc", "99999999999"]) assert.equal(wholeNumber(text), undefined, text);
});
