import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const stream = await client.chat.completions.create({
  model: "__MODEL__",
  messages: [{ role: "user", content: "{{از یک تا پنج بشمار.||Count from one to five.}}" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
