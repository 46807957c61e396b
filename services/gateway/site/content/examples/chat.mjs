import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const answer = await client.chat.completions.create({
  model: "__MODEL__",
  messages: [{ role: "user", content: "{{پایتخت ایران کجاست؟||What is the capital of Iran?}}" }],
});
console.log(answer.choices[0].message.content);
