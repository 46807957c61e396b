import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const answer = await client.chat.completions.create({
  model: "__STRUCTURED_MODEL__",
  messages: [{ role: "user", content: "{{این نظر چطور است: «عالی بود!»||How is this review: Excellent!}}" }],
  guided_choice: ["{{مثبت||positive}}", "{{منفی||negative}}"],
  chat_template_kwargs: { enable_thinking: false },
});
console.log(answer.choices[0].message.content);
