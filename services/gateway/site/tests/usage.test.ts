import assert from "node:assert/strict";
import { test } from "node:test";
import { type KeyUsage, limitRows, modelRows } from "../src/playground/usage.ts";

const counts = (tokens: number) => ({ requests: 1, prompt_tokens: tokens, completion_tokens: 1 });
const USAGE: KeyUsage = {
  today: { ...counts(10), ends: "2026-12-01T00:00:00Z", models: { small: counts(10) } },
  month: { ...counts(60), ends: "2026-12-01T00:00:00Z", models: { small: counts(20), large: counts(40) } },
  limits: { rpm: 60, tpm: null, concurrency: 8, daily_tokens: 1000, monthly_tokens: null },
  remaining: { rpm: 58, tpm: null, concurrency: 8, daily_tokens: -5, monthly_tokens: null },
  model_limits: {},
};

test("only limits that the key has are listed, and nothing less than zero is left", () => {
  assert.deepEqual(limitRows(USAGE), [
    { name: "rpm", limit: 60, left: 58 },
    { name: "concurrency", limit: 8, left: 8 },
    { name: "daily_tokens", limit: 1000, left: 0 },
  ]);
});

test("models are listed by their tokens of the month, also those that were not used today", () => {
  assert.deepEqual(modelRows(USAGE), [
    { model: "large", today: 0, month: 41 },
    { model: "small", today: 11, month: 21 },
  ]);
});
