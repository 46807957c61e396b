// Vercel's AI SDK with its provider for Anthropic: a tool call, and streams with tools and with thinking.
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, streamText, tool } from "ai";
import { z } from "zod";

const { VILIX_URL, VILIX_API_KEY, VILIX_MODEL } = process.env;
const model = createAnthropic({ baseURL: `${VILIX_URL}/v1`, apiKey: VILIX_API_KEY })(VILIX_MODEL);
const inputSchema = z.object({ command: z.string(), description: z.string().optional() });
const tools = { Bash: tool({ description: "Run a command", inputSchema }) };
const options = { model, prompt: "Run a command", maxRetries: 0, maxOutputTokens: 2048 };

function check(condition, found) {
  if (!condition) throw new Error(JSON.stringify(found));
}

async function partsOf(request) {
  const parts = [];
  for await (const part of streamText({ ...options, ...request }).fullStream) parts.push(part.type);
  check(!parts.includes("error"), parts);
  return parts;
}

const answer = await generateText({ ...options, tools });
check(answer.toolCalls[0]?.toolName === "Bash", answer.content);
check((await partsOf({ tools })).includes("tool-call"));
const thinking = { type: "enabled", budgetTokens: 1024 };
const parts = await partsOf({ providerOptions: { anthropic: { thinking } } });
check(parts.includes("reasoning-delta") && parts.includes("text-delta"), parts);
console.log("done");
