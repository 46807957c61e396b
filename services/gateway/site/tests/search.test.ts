import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { renderDocumentation } from "../build/markdown.ts";
import { renderReference } from "../build/reference.ts";
import { passagesOf } from "../build/search-index.ts";
import { en, fa } from "../build/words.ts";
import { folded, passagesMatching } from "../src/documentation/passages.ts";

/** What developers type. */
const QUERIES = [
  "استریم", "استریمینگ", "اندپوینت", "endpoint", "امبدینگ", "پلی‌گراند", "playground", "ریت لیمیت", "تایم‌اوت",
  "لیست مدل", "مدلها", "vision", "function calling", "دما", "استدلال", "پروکسی", "هزینه", "قیمت", "تگ", "وب‌سوکت",
  "کلید", "api key", "توکن", "max_tokens", "خطا", "429", "۴۲۹", "جیسون", "json schema", "ابزار", "تصویر", "curl",
  "پایتون", "جاوااسکریپت", "nginx", "gRPC", "سهمیه", "مصرف", "احراز هویت", "نیم‌فاصله", "مدل‌ها", "[DONE]",
  "پراکسی", "websocket", "sse", "آدرس", "base url", "بردار", "وکتور", "vector", "rate limit", "لیمیت", "تعرفه",
  "timeout", "504", "عکس", "تابع", "temperature", "فکر", "thinking", "think", "reasoning_content", "ارور", "401",
  "خروجی ساختاریافته", "structured output", "نصب", "pip", "نود", "کانتکست", "context window", "پرامپت",
  "سیستم پرامپت", "چت", "گفتگو", "جستجو", "rag", "هدر", "retry", "langchain", "openai sdk", "regex", "grammar", "seed",
  "ادیتور", "vs code", "ایجنت", "cursor", "نرمال‌سازی", "یکسان سازی", "املا", "تریس", "ردیابی", "tracing", "traceparent",
]; // biome-ignore format: rows are easier to read

const PAGES = [fa, en].map((words) => {
  const documentation = renderDocumentation(readFileSync(`content/${words.language}.md`, "utf8"), words);
  const passages = [documentation, renderReference(words)].flatMap(({ html, headings }) => passagesOf(html, headings));
  return passages.map(({ title, text }) => ({ text, folded: folded(text), isHeading: text === title }));
});

for (const query of QUERIES)
  test(`the search finds ${query} in both languages`, () => {
    for (const passages of PAGES) assert.ok(passagesMatching(passages, query).length > 0);
  });

test("a query whose words are nowhere finds nothing", () => {
  for (const passages of PAGES) assert.equal(passagesMatching(passages, "قورباغه zebra").length, 0);
});

test("a short synonym is found as a word, and not within another one", () => {
  const passages = ["run it in your ide", "we provide it"].map((text) => ({ text, folded: text, isHeading: false }));
  assert.deepEqual(
    passagesMatching(passages, "editor").map(({ text }) => text),
    ["run it in your ide"],
  );
});
