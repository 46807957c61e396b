import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const usage = await client.get("/usage");
console.log("{{امروز||today}}:", usage.today.prompt_tokens + usage.today.completion_tokens);
console.log("{{باقی‌مانده||remaining}}:", usage.remaining);
