import { createParser } from "eventsource-parser";
import { apiUrl } from "../api.ts";
import { language } from "../language.ts";
import { ApiProblem, errorFields, problemOf } from "./problem.ts";
import type { KeyUsage } from "./usage.ts";

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  completion_tokens_details?: { reasoning_tokens?: number };
}

export interface ToolCallFragment {
  index: number;
  id?: string;
  function?: { name?: string; arguments?: string };
}

export interface Chunk {
  choices: {
    delta: { content?: string | null; reasoning_content?: string | null; tool_calls?: ToolCallFragment[] };
    finish_reason: string | null;
  }[];
  usage?: Usage | null;
  error?: { message: string; type: string; param: string | null; code: string | null };
}

/** Sends one request. Throws an ApiProblem if it is rejected or the server cannot be reached. */
export async function post(path: string, body: unknown, key: string, signal?: AbortSignal): Promise<Response> {
  return send(path, key, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
    signal,
  });
}

/** Returns the number of tokens that the model would read for a request. Nothing is generated or billed. */
export async function promptTokens(request: Record<string, unknown>, key: string): Promise<number> {
  const { stream, stream_options, ...body } = request;
  const response = await post("/chat/completions", { ...body, dry_run: true }, key);
  return ((await response.json()) as { prompt_tokens: number }).prompt_tokens;
}

/** Checks a key by requesting the models. Throws an ApiProblem. */
export async function checkKey(key: string): Promise<void> {
  await send("/models", key, {});
}

/** Returns what a key has used, and what is left of its limits. Throws an ApiProblem. */
export async function keyUsage(key: string): Promise<KeyUsage> {
  const response = await send("/usage", key, {});
  return (await response.json()) as KeyUsage;
}

/** What was done for a request, as `GET /requests/{id}` states it. */
export interface Receipt {
  id: string;
  outcome: string;
  usage: { prompt_tokens: number; completion_tokens: number; cached_tokens: number };
  cost?: number;
  currency?: string;
  decimals?: number;
  engine?: string | null;
  engine_version?: string | null;
  /** When each stage was reached, in milliseconds from the request's arrival. */
  timings_ms?: Record<string, number>;
}

/** Returns the receipt of a request of the last day. Throws an ApiProblem. */
export async function receiptOf(requestId: string, key: string): Promise<Receipt> {
  const response = await send(`/requests/${encodeURIComponent(requestId)}`, key, {});
  return (await response.json()) as Receipt;
}

/** Reads the events and comments of a stream until `[DONE]`. Throws an ApiProblem if the stream ends early. */
export async function readStream(
  response: Response,
  onChunk: (chunk: Chunk) => void,
  onComment: (comment: string) => void,
): Promise<void> {
  const requestId = response.headers.get("x-request-id") ?? undefined;
  let isDone = false;
  const parser = createParser({
    onComment,
    onEvent({ data }) {
      if (data === "[DONE]") {
        isDone = true;
        return;
      }
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error) throw new ApiProblem({ kind: "api", requestId, ...errorFields(chunk.error) });
      onChunk(chunk);
    },
  });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  while (reader) {
    const { value, done } = await reader.read().catch((error: unknown) => {
      if (isAbort(error)) throw error;
      throw new ApiProblem({ kind: "cut", requestId });
    });
    if (done) break;
    parser.feed(value);
  }
  if (!isDone) throw new ApiProblem({ kind: "cut", requestId });
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

async function send(path: string, key: string, init: RequestInit): Promise<Response> {
  const headers = { ...init.headers, authorization: `Bearer ${key}`, "accept-language": language };
  const response = await fetch(apiUrl + path, { ...init, headers, credentials: "omit", cache: "no-store" }).catch(
    (error: unknown) => {
      if (isAbort(error)) throw error;
      throw new ApiProblem({ kind: "network" });
    },
  );
  if (!response.ok) throw new ApiProblem(await problemOf(response));
  return response;
}
