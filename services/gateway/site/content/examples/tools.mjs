import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const getWeather = ({ city }) => JSON.stringify({ city, celsius: 24, sky: "clear" });

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "{{هوای اکنون یک شهر||The weather in a city right now}}",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};
const messages = [{ role: "user", content: "{{هوای تهران چطور است؟||How is the weather in Tehran?}}" }];

let message;
do {
  const answer = await client.chat.completions.create({
    model: "__TOOLS_MODEL__",
    messages,
    tools: [weather],
  });
  message = answer.choices[0].message;
  messages.push(message);
  for (const call of message.tool_calls ?? []) {
    const content = getWeather(JSON.parse(call.function.arguments));
    messages.push({ role: "tool", tool_call_id: call.id, content });
  }
} while (message.tool_calls);

console.log(message.content);
