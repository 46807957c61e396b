// Checks OpenAI's JavaScript SDK: a response, a stream, a tool over two turns, structured output, and errors.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { VILIX_URL: baseURL, VILIX_API_KEY: apiKey } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const hello = [{ role: "user", content: "سلام" }];

const whole = await client.chat.completions.create({ model: "replay-thinking", messages: hello });
assert.equal(whole.choices[0].finish_reason, "stop");
assert.ok(whole.choices[0].message.reasoning_content.includes("کاربر"));
assert.ok(whole.usage.completion_tokens_details.reasoning_tokens > 0);

let content = "";
const stream = await client.chat.completions.create({ model: "replay-thinking", messages: hello, stream: true });
for await (const chunk of stream) content += chunk.choices[0]?.delta.content ?? "";
const wholeContent = whole.choices[0].message.content;
assert.deepEqual([content.length, content.slice(0, 9)], [wholeContent.length, wholeContent.slice(0, 9)]);

const cities = [];
for (const stream of [false, true]) {
  const runner = client.chat.completions.runTools({
    model: "replay-thinking",
    stream,
    messages: [{ role: "user", content: "هوا در تهران چطور است؟" }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          description: "The weather of a city",
          parameters: { type: "object", properties: { city: { type: "string" } } },
          parse: JSON.parse,
          function: ({ city }) => {
            cities.push(city);
            return `${city}: 21 °C`;
          },
        },
      },
    ],
  });
  assert.ok(await runner.finalContent());
}
assert.deepEqual(cities, ["تهران", "تهران"]);

const schema = {
  type: "object",
  properties: { name: { enum: ["Paris", "تهران"] } },
  required: ["name"],
  additionalProperties: false,
};
const parsed = await client.chat.completions.parse({
  model: "smollm2-135m",
  messages: [{ role: "user", content: "Name a city." }],
  max_tokens: 60,
  response_format: { type: "json_schema", json_schema: { name: "city", strict: true, schema } },
});
assert.ok(["Paris", "تهران"].includes(JSON.parse(parsed.choices[0].message.content).name));

const text = await client.completions.create({
  model: "smollm2-135m",
  prompt: "Paris is the capital of",
  max_tokens: 5,
});
assert.equal(text.object, "text_completion");

const persian = { headers: { "accept-language": "fa" } };
await assert.rejects(
  client.chat.completions.create({ model: "none", messages: hello }, persian),
  (error) =>
    error instanceof OpenAI.NotFoundError &&
    error.code === "model_not_found" &&
    error.message.includes("وجود ندارد"),
);
await assert.rejects(
  new OpenAI({ baseURL, apiKey: "vlx_wrong", maxRetries: 0 }).models.list(),
  (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key",
);
console.log("done");
