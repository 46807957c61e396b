import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const input = [
  "{{گربه روی فرش خوابیده است.||The cat sleeps on the rug.}}",
  "{{پیشی دارد چرت می‌زند.||A kitty is taking a nap.}}",
  "{{نرخ ارز بالا رفت.||The exchange rate went up.}}",
];
const { data } = await client.embeddings.create({ model: "__EMBEDDING_MODEL__", input });
const [cat, kitty, money] = data.map((item) => item.embedding);

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

console.log(cosine(cat, kitty).toFixed(3), ">", cosine(cat, money).toFixed(3));
