/** A conversation: what was said, and the request that it makes. Nothing here touches the page. */
import type { Problem } from "./problem.ts";
import type { Chunk, Usage } from "./requests.ts";

export interface ToolCall {
  id: string;
  name: string;
  arguments: string;
}

export interface Question {
  role: "user";
  id: number;
  text: string;
  /** `data:` URLs. */
  images: string[];
}

export interface ToolResult {
  role: "tool";
  id: number;
  callId: string;
  name: string;
  text: string;
}

export interface Times {
  /** All in milliseconds of `performance.now()`. */
  sent: number;
  first?: number;
  answer?: number;
  end?: number;
}

export interface Answer {
  role: "assistant";
  id: number;
  model: string;
  thought: string;
  text: string;
  calls: ToolCall[];
  status: "running" | "complete" | "stopped" | "failed";
  problem?: Problem;
  finishReason?: string;
  requestId?: string;
  usage?: Usage;
  times: Times;
  /** The request's body. */
  request: Record<string, unknown>;
}

export type Turn = Question | Answer | ToolResult;

export interface Settings {
  model: string;
  system: string;
  temperature?: number;
  maxTokens?: number;
  thinks: boolean;
  /** JSON text; empty for none. */
  schema: string;
  tools: string;
}

/** The body of the request for what was said so far. Raises SyntaxError for a schema or tools that are no JSON. */
export function requestBody(
  settings: Settings,
  turns: readonly Turn[],
  isThinkingOptional: boolean,
): Record<string, unknown> {
  const body: Record<string, unknown> = { model: settings.model, messages: messages(settings, turns) };
  if (settings.temperature !== undefined) body.temperature = settings.temperature;
  if (settings.maxTokens !== undefined) body.max_completion_tokens = settings.maxTokens;
  if (isThinkingOptional && !settings.thinks) body.reasoning_effort = "none";
  if (settings.schema.trim()) {
    const schema: unknown = JSON.parse(settings.schema);
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  if (settings.tools.trim()) body.tools = JSON.parse(settings.tools);
  body.stream = true;
  body.stream_options = { include_usage: true };
  return body;
}

function messages(settings: Settings, turns: readonly Turn[]): unknown[] {
  const said = turns
    .filter((turn) => turn.role !== "assistant" || turn.text !== "" || turn.calls.length > 0)
    .map(message);
  return settings.system.trim() ? [{ role: "system", content: settings.system }, ...said] : said;
}

function message(turn: Turn): unknown {
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.callId, content: turn.text };
  if (turn.role === "assistant") {
    const calls = turn.calls.map(({ id, name, arguments: given }) => ({
      id,
      type: "function",
      function: { name, arguments: given },
    }));
    return { role: "assistant", content: turn.text || null, ...(calls.length ? { tool_calls: calls } : {}) };
  }
  if (turn.images.length === 0) return { role: "user", content: turn.text };
  const images = turn.images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: [{ type: "text", text: turn.text }, ...images] };
}

/** Takes one event of the stream over into the answer. */
export function takeChunk(answer: Answer, chunk: Chunk, now: number): void {
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices[0];
  if (!choice) return;
  const { content, reasoning_content: thought, tool_calls: fragments = [] } = choice.delta;
  if (content || thought || fragments.length) answer.times.first ??= now;
  if (content || fragments.length) answer.times.answer ??= now;
  if (thought) answer.thought += thought;
  if (content) answer.text += content;
  for (const { index, id, function: part } of fragments) {
    answer.calls[index] ??= { id: "", name: "", arguments: "" };
    const call = answer.calls[index];
    call.id ||= id ?? "";
    call.name += part?.name ?? "";
    call.arguments += part?.arguments ?? "";
  }
  if (choice.finish_reason) answer.finishReason = choice.finish_reason;
}

/** Calls of the last answer that have no result yet. */
export function openCalls(turns: readonly Turn[]): ToolCall[] {
  const at = turns.findLastIndex((turn) => turn.role === "assistant");
  const answer = turns[at];
  if (answer?.role !== "assistant" || answer.status !== "complete") return [];
  const answered = new Set(turns.slice(at).map((turn) => (turn.role === "tool" ? turn.callId : "")));
  return answer.calls.filter((call) => !answered.has(call.id));
}

export interface Speed {
  /** Milliseconds to the first token. */
  first: number;
  total: number;
  tokensPerSecond?: number;
}

/** How fast an answer came. */
export function speedOf({ times, usage }: Answer): Speed | undefined {
  if (times.first === undefined || times.end === undefined) return undefined;
  const seconds = (times.end - times.first) / 1000;
  const tokens = usage?.completion_tokens ?? 0;
  return {
    first: times.first - times.sent,
    total: times.end - times.sent,
    // The first token's own time is the wait before it. A few tokens tell nothing about speed.
    tokensPerSecond: tokens > 5 && seconds > 0.05 ? (tokens - 1) / seconds : undefined,
  };
}
