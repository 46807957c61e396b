import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

async function embed(input, input_type) {
  const { data } = await client.embeddings.create({ model: "__EMBEDDING_MODEL__", input, input_type });
  return data.map((item) => item.embedding);
}

const documents = [
  "{{آب در صد درجه به جوش می‌آید.||Water boils at a hundred degrees.}}",
  "{{سی‌وسه‌پل روی زاینده‌رود ساخته شده است.||The Thames flows through London.}}",
  "{{پنگوئن‌ها پرواز نمی‌کنند.||Penguins do not fly.}}",
];
const passages = await embed(documents, "passage");
const query = "{{کدام پل در اصفهان است؟||Which river runs through the capital of England?}}";
const [question] = await embed([query], "query");

const similarity = (passage) => passage.reduce((sum, x, i) => sum + x * question[i], 0);
const scores = passages.map(similarity);
console.log(documents[scores.indexOf(Math.max(...scores))]);
