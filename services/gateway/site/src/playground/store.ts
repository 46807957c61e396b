/** The state of the playground. The key and the conversation exist only in this tab. */
import { batch, computed, signal } from "@preact/signals";
import { listModels, type Model } from "../api.ts";
import {
  type Answer,
  addChunk,
  openCalls,
  type Question,
  requestBody,
  type Settings,
  type ToolResult,
  type Turn,
} from "./conversation.ts";
import { ApiProblem, type Problem } from "./problem.ts";
import { checkKey, isAbort, post, readStream } from "./requests.ts";

const KEY = "vilix-key";
const CHAT = "/chat/completions";

export const models = signal<Model[]>([]);
export const settings = signal<Settings>({ model: "", system: "", isReasoningEnabled: true, schema: "", tools: "" });
export const turns = signal<readonly Turn[]>([]);
/** Increases when an answer grows, at most once per frame. */
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

/** Stores a key and checks it with the server. */
export async function useKey(entered: string): Promise<void> {
  key.value = entered.trim();
  remember(key.value);
  if (!key.value) {
    keyState.value = "none";
    return;
  }
  keyState.value = "checking";
  const checked = key.value;
  const state = await checkKey(checked).then(
    () => "good" as const,
    (error: unknown) => (error instanceof ApiProblem ? error.problem : ({ kind: "network" } as Problem)),
  );
  if (key.value !== checked) return;
  keyState.value = typeof state === "object" && state.status === 401 ? "bad" : state;
}

export function ask(text: string, images: string[]): void {
  const question: Question = { role: "user", id: nextId++, text, images };
  turns.value = [...turns.value, question];
  void answer();
}

/** Replaces an earlier message, and continues from there. */
export function editQuestion(id: number, text: string): void {
  const at = turns.value.findIndex((turn) => turn.id === id);
  const before = turns.value[at];
  if (before?.role !== "user") return;
  turns.value = [...turns.value.slice(0, at), { ...before, id: nextId++, text }];
  void answer();
}

/** Regenerates the answer `id`. */
export function retry(id: number): void {
  turns.value = turns.value.slice(
    0,
    turns.value.findIndex((turn) => turn.id === id),
  );
  void answer();
}

/** Adds a tool's result. The model continues when every call has a result. */
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

/** Returns the request of the last answer, or the request that the present settings and turns would send. */
export function currentRequest(): Record<string, unknown> {
  const last = turns.value.at(-1);
  if (last?.role === "assistant") return last.request;
  return requestBody(settings.value, turns.value, Boolean(can.value.reasoning_optional));
}

async function answer(): Promise<void> {
  stop();
  const request = requestBody(settings.value, turns.value, Boolean(can.value.reasoning_optional));
  const current: Answer = {
    role: "assistant",
    id: nextId++,
    model: settings.value.model,
    reasoning: "",
    text: "",
    calls: [],
    status: "running",
    times: { sent: performance.now() },
    request,
  };
  const abort = new AbortController();
  stopping = abort;
  batch(() => {
    turns.value = [...turns.value, current];
    running.value = current;
  });
  try {
    const response = await post(CHAT, request, key.value, abort.signal);
    current.requestId = response.headers.get("x-request-id") ?? undefined;
    await readStream(response, (chunk) => {
      addChunk(current, chunk, performance.now());
      grow();
    });
    current.status = "complete";
  } catch (error) {
    current.status = isAbort(error) ? "stopped" : "failed";
    if (current.status === "failed") current.problem = error instanceof ApiProblem ? error.problem : { kind: "cut" };
    current.requestId ??= current.problem?.requestId;
    if (current.problem?.status === 401) keyState.value = "bad";
  }
  current.times.end = performance.now();
  batch(() => {
    if (running.value === current) running.value = undefined;
    growth.value++;
  });
}

let isGrowing = false;

function grow(): void {
  if (isGrowing) return;
  isGrowing = true;
  // A tab in the background has no animation frames.
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
    // Without storage, the key lasts as long as the page.
  }
}
