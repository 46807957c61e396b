/** The state of the playground. The key and everything said live in this tab alone. */
import { batch, computed, signal } from "@preact/signals";
import { listModels, type Model } from "../api.ts";
import {
  type Answer,
  openCalls,
  type Question,
  requestBody,
  type Settings,
  type ToolResult,
  type Turn,
  takeChunk,
} from "./conversation.ts";
import { ApiProblem, type Problem } from "./problem.ts";
import { checkKey, isAbort, post, readStream } from "./requests.ts";

const KEY = "vilix-key";
const CHAT = "/chat/completions";

export const models = signal<Model[]>([]);
export const settings = signal<Settings>({ model: "", system: "", thinks: true, schema: "", tools: "" });
export const turns = signal<readonly Turn[]>([]);
/** Grows when an answer does: at most once a frame. */
export const growth = signal(0);
export const running = signal<Answer | undefined>(undefined);
export const key = signal(stored());
export const keyState = signal<"none" | "checking" | "good" | "bad" | Problem>(key.peek() ? "checking" : "none");

export const model = computed(() => models.value.find(({ id }) => id === settings.value.model));
export const chatModels = computed(() => models.value.filter((one) => one.capabilities?.chat || !one.available));
export const embeddingModels = computed(() => models.value.filter((one) => one.capabilities?.embeddings));
export const can = computed(() => model.value?.capabilities ?? {});
export const problems = computed(() => ({
  schema: isJson(settings.value.schema) ? undefined : ("notJson" as const),
  tools: !isJson(settings.value.tools)
    ? ("notJson" as const)
    : settings.value.tools.trim() && !Array.isArray(JSON.parse(settings.value.tools))
      ? ("notArray" as const)
      : undefined,
}));
export const isReady = computed(
  () =>
    Boolean(key.value && keyState.value !== "bad" && model.value && !problems.value.schema && !problems.value.tools) &&
    !running.value,
);

let nextId = 1;
let stopping: AbortController | undefined;

export async function loadModels(): Promise<void> {
  models.value = await listModels();
  const chat = chatModels.value;
  const first = chat.find((one) => one.available) ?? chat[0];
  if (first && !settings.value.model) change({ model: first.id });
}

export function change(changes: Partial<Settings>): void {
  settings.value = { ...settings.value, ...changes };
}

/** Takes over a key, and asks the server what it thinks of it. */
export async function useKey(given: string): Promise<void> {
  key.value = given.trim();
  remember(key.value);
  if (!key.value) {
    keyState.value = "none";
    return;
  }
  keyState.value = "checking";
  const asked = key.value;
  const state = await checkKey(asked).then(
    () => "good" as const,
    (error: unknown) => (error instanceof ApiProblem ? error.problem : ({ kind: "network" } as Problem)),
  );
  if (key.value !== asked) return;
  keyState.value = typeof state === "object" && state.status === 401 ? "bad" : state;
}

export function ask(text: string, images: string[]): void {
  const question: Question = { role: "user", id: nextId++, text, images };
  turns.value = [...turns.value, question];
  void answer();
}

/** Says something else at an earlier place, and goes on from there. */
export function editQuestion(id: number, text: string): void {
  const at = turns.value.findIndex((turn) => turn.id === id);
  const before = turns.value[at];
  if (before?.role !== "user") return;
  turns.value = [...turns.value.slice(0, at), { ...before, id: nextId++, text }];
  void answer();
}

/** Asks again for the answer `id`. */
export function retry(id: number): void {
  turns.value = turns.value.slice(
    0,
    turns.value.findIndex((turn) => turn.id === id),
  );
  void answer();
}

/** Hands a tool's result to the model; it goes on when every call has one. */
export function giveResult(callId: string, name: string, text: string): void {
  const result: ToolResult = { role: "tool", id: nextId++, callId, name, text };
  turns.value = [...turns.value, result];
  if (openCalls(turns.value).length === 0) void answer();
}

export function stop(): void {
  stopping?.abort();
}

export function startOver(): void {
  stop();
  turns.value = [];
}

/** The request that the present settings and turns make; what was sent, if nothing has been said since. */
export function currentRequest(): Record<string, unknown> {
  const last = turns.value.at(-1);
  if (last?.role === "assistant") return last.request;
  return requestBody(settings.value, turns.value, Boolean(can.value.reasoning_optional));
}

async function answer(): Promise<void> {
  stop();
  const request = requestBody(settings.value, turns.value, Boolean(can.value.reasoning_optional));
  const given: Answer = {
    role: "assistant",
    id: nextId++,
    model: settings.value.model,
    thought: "",
    text: "",
    calls: [],
    status: "running",
    times: { sent: performance.now() },
    request,
  };
  const abort = new AbortController();
  stopping = abort;
  batch(() => {
    turns.value = [...turns.value, given];
    running.value = given;
  });
  try {
    const response = await post(CHAT, request, key.value, abort.signal);
    given.requestId = response.headers.get("x-request-id") ?? undefined;
    await readStream(response, (chunk) => {
      takeChunk(given, chunk, performance.now());
      grow();
    });
    given.status = "complete";
  } catch (error) {
    given.status = isAbort(error) ? "stopped" : "failed";
    if (given.status === "failed") given.problem = error instanceof ApiProblem ? error.problem : { kind: "cut" };
    given.requestId ??= given.problem?.requestId;
    if (given.problem?.status === 401) keyState.value = "bad";
  }
  given.times.end = performance.now();
  batch(() => {
    if (running.value === given) running.value = undefined;
    growth.value++;
  });
}

let isGrowing = false;

function grow(): void {
  if (isGrowing) return;
  isGrowing = true;
  // A tab in the background has no frames.
  const schedule = document.hidden ? (then: () => void) => setTimeout(then, 200) : requestAnimationFrame;
  schedule(() => {
    isGrowing = false;
    growth.value++;
  });
}

function isJson(text: string): boolean {
  if (!text.trim()) return true;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function stored(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function remember(value: string): void {
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Then it lasts as long as the page.
  }
}
