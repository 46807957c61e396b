// Checks @openai/agents with its default model class: a tool over two turns, whole and streamed.
import assert from "node:assert/strict";
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from "@openai/agents";
import { z } from "zod";

const { VILIX_URL: baseURL, VILIX_API_KEY: apiKey, VILIX_MODEL: model } = process.env;
setTracingDisabled(true);
const runner = new Runner({ modelProvider: new OpenAIProvider({ baseURL, apiKey }), tracingDisabled: true });
const getWeather = tool({
  name: "get_weather",
  description: "Return the weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `${city}: 21 °C`,
});
const agent = new Agent({ name: "weather", instructions: "Be brief.", model, tools: [getWeather] });
const whole = await runner.run(agent, "هوا در تهران چطور است؟");
assert.match(whole.finalOutput, /21 °C/);
const streamed = await runner.run(agent, "هوا در تهران چطور است؟", { stream: true });
for await (const _ of streamed);
assert.match(streamed.finalOutput, /21 °C/);
console.log("done");
