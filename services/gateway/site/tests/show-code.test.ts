import assert from "node:assert/strict";
import { test } from "node:test";
import { codeFor } from "../src/playground/show-code.ts";

const BODY = {
  model: "m",
  messages: [{ role: "user", content: 'it\'s "سلام"\n{}' }],
  tools: [{ type: "function", function: { name: "f", parameters: { required: null, strict: true } } }],
  stream: true,
  stream_options: { include_usage: true },
};

test("Python code has Python's literals", () => {
  const code = codeFor("python", "/chat/completions", BODY, "http://host/api");
  assert.match(code, /stream=True,/);
  assert.match(code, /"required": None, "strict": True/);
  assert.match(code, /"it's \\"سلام\\"\\n\{\}"/);
});

test("quotation marks are escaped in cURL commands", () => {
  const code = codeFor("bash", "/chat/completions", BODY, "http://host/api");
  assert.match(code, /it'\\''s/);
});

test("JavaScript code has unquoted property names", () => {
  assert.match(
    codeFor("javascript", "/embeddings", { model: "m", input: ["a"] }, "http://host/api"),
    /\{ model: "m", input: \["a"\] \}/,
  );
});
