import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

for await (const model of client.models.list()) console.log(model.id);
