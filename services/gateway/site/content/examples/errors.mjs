import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
  maxRetries: 4,
});

try {
  await client.chat.completions.create({
    model: "no-such-model",
    messages: [{ role: "user", content: "{{سلام||Hello}}" }],
  });
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  console.log(error.status, error.code, error.message);
  console.log("{{شناسهٔ درخواست||request id}}:", error.requestID);
}
