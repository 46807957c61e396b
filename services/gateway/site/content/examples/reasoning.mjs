import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const stream = await client.chat.completions.create({
  model: "__REASONING_MODEL__",
  messages: [{ role: "user", content: "{{۱۷ ضرب در ۲۳ چند می‌شود؟||What is 17 times 23?}}" }],
  stream: true,
});
for await (const chunk of stream) {
  const delta = chunk.choices[0]?.delta ?? {};
  if (delta.reasoning_content) process.stderr.write(delta.reasoning_content);
  if (delta.content) process.stdout.write(delta.content);
}
