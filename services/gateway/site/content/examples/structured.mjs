import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});

const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 40 },
    age: { type: "integer", minimum: 0, maximum: 120 },
  },
  required: ["name", "age"],
  additionalProperties: false,
};
const answer = await client.chat.completions.create({
  model: "__STRUCTURED_MODEL__",
  messages: [{ role: "user", content: "{{سارا ۲۷ ساله است.||Sara is 27 years old.}}" }],
  response_format: {
    type: "json_schema",
    json_schema: { name: "person", schema, strict: true },
  },
});
const person = JSON.parse(answer.choices[0].message.content);
console.log(person.name, person.age);
