// Checks the AI SDK's default model of @ai-sdk/openai: a tool over two turns, a stream, and a second turn.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const { VILIX_URL: baseURL, VILIX_API_KEY: apiKey, VILIX_MODEL: name } = process.env;
const model = createOpenAI({ baseURL, apiKey })(name);
assert.match(model.provider, /responses/);

const tools = {
  get_weather: tool({
    description: "Return the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `${city}: 21 °C`,
  }),
};
const question = { role: "user", content: "هوا در تهران چطور است؟" };
const result = await generateText({ model, tools, messages: [question], stopWhen: stepCountIs(3), maxRetries: 0 });
assert.match(result.text, /21 °C/);
assert.equal(result.steps.length, 2);

let text = "";
const stream = streamText({ model, prompt: "سلام دنیا", maxRetries: 0 });
for await (const part of stream.textStream) text += part;
assert.equal(text, "echo: سلام دنیا");

// The SDK refers to what is stored by the ids of items.
const second = await generateText({
  model,
  messages: [question, ...result.response.messages, { role: "user", content: "و دوباره" }],
  maxRetries: 0,
});
assert.equal(second.text, "echo: و دوباره");
console.log("done");
