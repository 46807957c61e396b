import { readFile } from "node:fs/promises";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const photo = await readFile("photo.jpg", "base64");
const answer = await client.chat.completions.create({
  model: "__VISION_MODEL__",
  messages: [
    {
      role: "user",
      content: [
        { type: "text", text: "{{در این عکس چه می‌بینی؟||What do you see in this picture?}}" },
        { type: "image_url", image_url: { url: `data:image/jpeg;base64,${photo}` } },
      ],
    },
  ],
});
console.log(answer.choices[0].message.content);
