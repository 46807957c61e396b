/** A conversation and its requests, independent of the page. */
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
  /** All times are in milliseconds of `performance.now()`. */
  sent: number;
  first?: number;
  answer?: number;
  end?: number;
}

export interface Answer {
  role: "assistant";
  id: number;
  model: string;
  reasoning: string;
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
  /** The place in the queue, once the server has told one. */
  queuePosition?: number;
  /** The other versions of the answer, which have no versions themselves. */
  alternatives: Answer[];
}

export type Turn = Question | Answer | ToolResult;

export interface Settings {
  model: string;
  system: string;
  temperature?: number;
  maxTokens?: number;
  isReasoningEnabled: boolean;
  /** JSON text, or an empty string. */
  schema: string;
  tools: string;
}

/** Returns the body of the request for a conversation. Throws a SyntaxError if the schema or the tools are not JSON. */
export function requestBody(
  settings: Settings,
  turns: readonly Turn[],
  isReasoningOptional: boolean,
): Record<string, unknown> {
  const body: Record<string, unknown> = { model: settings.model, messages: messages(settings, turns) };
  if (settings.temperature !== undefined) body.temperature = settings.temperature;
  if (settings.maxTokens !== undefined) body.max_completion_tokens = settings.maxTokens;
  if (isReasoningOptional && !settings.isReasoningEnabled) body.reasoning_effort = "none";
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
  const sent = turns.filter((turn, index) => !isEmpty(turn) && !isUnanswered(turn, turns[index + 1])).map(message);
  return settings.system.trim() ? [{ role: "system", content: settings.system }, ...sent] : sent;
}

function isEmpty(turn: Turn): boolean {
  return turn.role === "assistant" && turn.text === "" && turn.calls.length === 0;
}

/** A question without an answer would stand before the next question, as if both were asked at once. */
function isUnanswered(turn: Turn, next: Turn | undefined): boolean {
  return turn.role === "user" && next !== undefined && isEmpty(next);
}

function message(turn: Turn): unknown {
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.callId, content: turn.text };
  if (turn.role === "assistant") {
    const calls = turn.calls.map(({ id, name, arguments: json }) => ({
      id,
      type: "function",
      function: { name, arguments: json },
    }));
    return { role: "assistant", content: turn.text || null, ...(calls.length ? { tool_calls: calls } : {}) };
  }
  if (turn.images.length === 0) return { role: "user", content: turn.text };
  const images = turn.images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: [{ type: "text", text: turn.text }, ...images] };
}

/** Returns the other versions of a turn. */
export function alternativesOf(turn: Turn): Answer[] {
  return turn.role === "assistant" ? turn.alternatives : [];
}

/** Returns all versions of an answer in the order in which they were generated. */
export function versionsOf(answer: Answer): Answer[] {
  const all = [...answer.alternatives, { ...answer, alternatives: [] }];
  return all.sort((one, other) => one.id - other.id);
}

/** Returns whether an answer was asked for as JSON. */
export function isJsonAnswer({ request }: Answer): boolean {
  return request.response_format !== undefined;
}

/** Returns JSON text with a line for each member, or undefined if it is not valid. */
export function prettyJson(text: string): string | undefined {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return undefined;
  }
}

/** Returns an answer's text as Markdown: JSON as a block of code. */
export function asMarkdownText(answer: Answer): string {
  if (!isJsonAnswer(answer)) return answer.text;
  if (answer.status === "running") return `\`\`\`json\n${answer.text}`;
  return `\`\`\`json\n${prettyJson(answer.text) ?? answer.text}\n\`\`\``;
}

/** Returns the place in the queue that a comment of the stream tells. */
export function queuePosition(comment: string): number | undefined {
  const position = /^\s*queued (\d+)/.exec(comment)?.[1];
  return position === undefined ? undefined : Number(position);
}

/** Adds one event of the stream to the answer. */
export function addChunk(answer: Answer, chunk: Chunk, now: number): void {
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices[0];
  if (!choice) return;
  const { content, reasoning_content: reasoning, tool_calls: fragments = [] } = choice.delta;
  if (content || reasoning || fragments.length) answer.times.first ??= now;
  if (content || fragments.length) answer.times.answer ??= now;
  if (reasoning) answer.reasoning += reasoning;
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

/** Returns the calls of the last answer that have no result yet. */
export function openCalls(turns: readonly Turn[]): ToolCall[] {
  const at = turns.findLastIndex((turn) => turn.role === "assistant");
  const answer = turns[at];
  if (answer?.role !== "assistant" || answer.status !== "complete") return [];
  const withResult = new Set(turns.slice(at).map((turn) => (turn.role === "tool" ? turn.callId : "")));
  return answer.calls.filter((call) => !withResult.has(call.id));
}

export interface Speed {
  /** The milliseconds to the first token. */
  first: number;
  total: number;
  tokensPerSecond?: number;
}

/** Returns the speed of a finished answer. */
export function speedOf({ times, usage }: Answer): Speed | undefined {
  if (times.first === undefined || times.end === undefined) return undefined;
  const seconds = (times.end - times.first) / 1000;
  const tokens = usage?.completion_tokens ?? 0;
  return {
    first: times.first - times.sent,
    total: times.end - times.sent,
    // The time of the first token is the wait before it. A few tokens do not show the speed.
    tokensPerSecond: tokens > 5 && seconds > 0.05 ? (tokens - 1) / seconds : undefined,
  };
}
