import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, openCalls, requestBody, speedOf, takeChunk } from "../src/playground/conversation.ts";

const SETTINGS = { model: "m", system: "", thinks: true, schema: "", tools: "" };

function answer(changes: Partial<Answer> = {}): Answer {
  return {
    role: "assistant",
    id: 2,
    model: "m",
    thought: "",
    text: "",
    calls: [],
    status: "running",
    times: { sent: 0 },
    request: {},
    ...changes,
  };
}

test("a request holds what was chosen, and nothing else", () => {
  assert.deepEqual(requestBody(SETTINGS, [{ role: "user", id: 1, text: "سلام", images: [] }], false), {
    model: "m",
    messages: [{ role: "user", content: "سلام" }],
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("thinking is turned off only where it can be", () => {
  assert.equal(requestBody({ ...SETTINGS, thinks: false }, [], true).reasoning_effort, "none");
  assert.equal(requestBody({ ...SETTINGS, thinks: false }, [], false).reasoning_effort, undefined);
});

test("fragments of a tool call are put together", () => {
  const given = answer();
  const chunk = (index: number, fragment: object) => ({
    choices: [{ delta: { tool_calls: [{ index, ...fragment }] }, finish_reason: null }],
  });
  takeChunk(given, chunk(0, { id: "a", function: { name: "f", arguments: "" } }), 10);
  takeChunk(given, chunk(0, { function: { arguments: '{"x":' } }), 11);
  takeChunk(given, chunk(0, { function: { arguments: "1}" } }), 12);
  assert.deepEqual(given.calls, [{ id: "a", name: "f", arguments: '{"x":1}' }]);
  given.status = "complete";
  assert.equal(openCalls([given]).length, 1);
  assert.equal(openCalls([given, { role: "tool", id: 3, callId: "a", name: "f", text: "2" }]).length, 0);
});

test("speed leaves the wait for the first token out", () => {
  const given = answer({
    times: { sent: 0, first: 500, end: 1500 },
    usage: { prompt_tokens: 1, completion_tokens: 101 },
  });
  assert.deepEqual(speedOf(given), { first: 500, total: 1500, tokensPerSecond: 100 });
});
