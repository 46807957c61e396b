import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const messages = [
  { role: "system", content: "{{کوتاه و روشن پاسخ بده.||Answer briefly and plainly.}}" },
  { role: "user", content: "{{سه میوه نام ببر.||Name three fruits.}}" },
];
for (const question of ["{{کدام‌یک شیرین‌تر است؟||Which one is the sweetest?}}", null]) {
  const answer = await client.chat.completions.create({
    model: "__MODEL__",
    messages,
    max_tokens: 200,
  });
  const text = answer.choices[0].message.content;
  console.log(text);
  messages.push({ role: "assistant", content: text });
  if (question) messages.push({ role: "user", content: question });
}
