import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Answer,
  addChunk,
  asMarkdownText,
  openCalls,
  queuePosition,
  requestBody,
  speedOf,
  versionsOf,
} from "../src/playground/conversation.ts";

const SETTINGS = { model: "m", system: "", isReasoningEnabled: true, schema: "", tools: "" };

function answer(changes: Partial<Answer> = {}): Answer {
  return {
    role: "assistant",
    id: 2,
    model: "m",
    reasoning: "",
    text: "",
    calls: [],
    status: "running",
    times: { sent: 0 },
    request: {},
    alternatives: [],
    ...changes,
  };
}

test("a request contains only the chosen settings", () => {
  assert.deepEqual(requestBody(SETTINGS, [{ role: "user", id: 1, text: "سلام", images: [] }], false), {
    model: "m",
    messages: [{ role: "user", content: "سلام" }],
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("reasoning is turned off only if the model supports it", () => {
  assert.equal(requestBody({ ...SETTINGS, isReasoningEnabled: false }, [], true).reasoning_effort, "none");
  assert.equal(requestBody({ ...SETTINGS, isReasoningEnabled: false }, [], false).reasoning_effort, undefined);
});

test("fragments of a tool call are joined", () => {
  const current = answer();
  const chunk = (index: number, fragment: object) => ({
    choices: [{ delta: { tool_calls: [{ index, ...fragment }] }, finish_reason: null }],
  });
  addChunk(current, chunk(0, { id: "a", function: { name: "f", arguments: "" } }), 10);
  addChunk(current, chunk(0, { function: { arguments: '{"x":' } }), 11);
  addChunk(current, chunk(0, { function: { arguments: "1}" } }), 12);
  assert.deepEqual(current.calls, [{ id: "a", name: "f", arguments: '{"x":1}' }]);
  current.status = "complete";
  assert.equal(openCalls([current]).length, 1);
  assert.equal(openCalls([current, { role: "tool", id: 3, callId: "a", name: "f", text: "2" }]).length, 0);
});

test("the speed excludes the wait for the first token", () => {
  const current = answer({
    times: { sent: 0, first: 500, end: 1500 },
    usage: { prompt_tokens: 1, completion_tokens: 101 },
  });
  assert.deepEqual(speedOf(current), { first: 500, total: 1500, tokensPerSecond: 100 });
});

test("a question whose answer failed is not sent again with the next one", () => {
  const turns = [
    { role: "user" as const, id: 1, text: "first", images: [] },
    answer({ id: 2, status: "failed" }),
    { role: "user" as const, id: 3, text: "second", images: [] },
  ];
  assert.deepEqual(requestBody(SETTINGS, turns, false).messages, [{ role: "user", content: "second" }]);
  // The same question is sent when it is tried again.
  assert.deepEqual(requestBody(SETTINGS, turns.slice(0, 1), false).messages, [{ role: "user", content: "first" }]);
});

test("versions of an answer are in the order in which they were generated", () => {
  const first = answer({ id: 2, text: "one" });
  const second = answer({ id: 5, text: "two", alternatives: [first] });
  const shown = { ...first, alternatives: [second] };
  for (const one of [second, shown])
    assert.deepEqual(
      versionsOf(one).map(({ text }) => text),
      ["one", "two"],
    );
  assert.ok(versionsOf(second).every(({ alternatives }) => alternatives.length === 0));
});

test("a comment of the stream tells the place in the queue", () => {
  assert.equal(queuePosition(" queued 3"), 3);
  assert.equal(queuePosition(" keep-alive"), undefined);
});

test("an answer in JSON is a block of code", () => {
  const current = answer({ request: { response_format: {} }, text: '{"a":1' });
  assert.equal(asMarkdownText(current), '```json\n{"a":1');
  current.text += "}";
  current.status = "complete";
  assert.equal(asMarkdownText(current), '```json\n{\n  "a": 1\n}\n```');
});
