import assert from "node:assert/strict";
import { test } from "node:test";
import { directionOf } from "../src/markdown/direction.ts";

test("Persian that begins with an English word has the direction rtl", () => {
  assert.equal(directionOf("Python یک زبان برنامه‌نویسی است.", "ltr"), "rtl");
  assert.equal(directionOf("استفاده از JavaScript و TypeScript", "ltr"), "rtl");
});

test("English that quotes a Persian word has the direction ltr", () => {
  assert.equal(directionOf("The word سلام is a greeting in Persian.", "rtl"), "ltr");
});

test("text without letters has the direction of its context", () => {
  assert.equal(directionOf("۱۲۳ — 456", "rtl"), "rtl");
  assert.equal(directionOf("", "ltr"), "ltr");
});
