/** The state of the playground. The key and the conversation exist only in this tab. */
import { batch, computed, effect, signal } from "@preact/signals";
import { type Model, watchModels } from "../api.ts";
import { cleanKey, storedKey, storeKey } from "../key-storage.ts";
import { loadMarkdown } from "../markdown/load-markdown.ts";
import {
  type Answer,
  addChunk,
  alternativesOf,
  openCalls,
  type Question,
  queuePosition,
  requestBody,
  type Settings,
  type ToolResult,
  type Turn,
  versionsOf,
} from "./conversation.ts";
import { ApiProblem, type Problem } from "./problem.ts";
import { type Chunk, checkKey, isAbort, post, readStream } from "./requests.ts";
import { saveConversation, savedConversation } from "./saved-conversation.ts";

const CHAT = "/chat/completions";

const NO_SETTINGS: Settings = { model: "", system: "", isReasoningEnabled: true, schema: "", tools: "" };
const saved = savedConversation();

export const models = signal<Model[]>([]);
export const settings = signal<Settings>({ ...NO_SETTINGS, ...saved?.settings });
export const turns = signal<readonly Turn[]>(saved?.turns ?? []);
/** Increases when an answer grows, at most once per frame. */
export const growth = signal(0);
export const running = signal<Answer | undefined>(undefined);
export const key = signal(storedKey());
/** The key of a link, which is used only after a question; empty without one. */
export const offeredKey = signal("");
export const keyState = signal<"none" | "checking" | "good" | "bad" | Problem>(key.peek() ? "checking" : "none");

export const model = computed(() => models.value.find(({ id }) => id === settings.value.model));
export const chatModels = computed(() => models.value.filter((one) => one.capabilities?.chat || !one.available));
export const embeddingModels = computed(() => models.value.filter((one) => one.capabilities?.embeddings));
export const can = computed(() => model.value?.capabilities ?? {});
/** The settings without those that the model cannot use. */
const usable = computed(() => ({
  ...settings.value,
  ...(can.value.structured_output === false ? { schema: "" } : {}),
  ...(can.value.tools === false ? { tools: "" } : {}),
}));
export const problems = computed(() => ({
  schema: isJson(usable.value.schema) ? undefined : ("notJson" as const),
  tools: !isJson(usable.value.tools)
    ? ("notJson" as const)
    : usable.value.tools.trim() && !Array.isArray(JSON.parse(usable.value.tools))
      ? ("notArray" as const)
      : undefined,
}));
export const isReady = computed(
  () =>
    Boolean(key.value && keyState.value !== "bad" && model.value && !problems.value.schema && !problems.value.tools) &&
    !running.value,
);

let nextId = 1 + Math.max(0, ...turns.peek().flatMap((turn) => [turn.id, ...alternativesOf(turn).map(({ id }) => id)]));
let stopping: AbortController | undefined;

/** Follows which models there are. */
export function followModels(): void {
  watchModels((list) => {
    models.value = list;
    const chat = chatModels.value;
    if (chat.some(({ id }) => id === settings.value.model)) return;
    const first = chat.find((one) => one.available) ?? chat[0];
    if (first) change({ model: first.id });
  });
}

/** Keeps the conversation in this tab whenever it changes, and when the page is left. */
export function keepConversation(): void {
  const save = () => saveConversation(settings.value, turns.value);
  // The end of an answer counts as a change.
  effect(() => {
    running.value;
    save();
  });
  addEventListener("pagehide", save);
}

export function change(changes: Partial<Settings>): void {
  settings.value = { ...settings.value, ...changes };
}

/** Stores a key and checks it with the server. */
export async function useKey(entered: string): Promise<void> {
  key.value = cleanKey(entered);
  storeKey(key.value);
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

/** Uses the key of a link, or asks first if it would replace another one. */
export function offerKey(offered: string): void {
  if (key.value && key.value !== offered) offeredKey.value = offered;
  else void useKey(offered);
}

export function acceptOfferedKey(): void {
  const offered = offeredKey.value;
  offeredKey.value = "";
  void useKey(offered);
}

export function rejectOfferedKey(): void {
  offeredKey.value = "";
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

/** Generates another version of the answer `id`. The earlier versions are kept beside it. */
export function retry(id: number): void {
  const at = turns.value.findIndex((turn) => turn.id === id);
  const before = turns.value[at];
  turns.value = turns.value.slice(0, at);
  void answer(before?.role === "assistant" ? versionsOf(before) : []);
}

/** Displays another version of an answer. */
export function chooseVersion(current: Answer, chosen: Answer): void {
  const others = versionsOf(current).filter(({ id }) => id !== chosen.id);
  turns.value = turns.value.map((turn) => (turn === current ? { ...chosen, alternatives: others } : turn));
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
  return requestBody(usable.value, turns.value, Boolean(can.value.reasoning_optional));
}

async function answer(alternatives: Answer[] = []): Promise<void> {
  stop();
  const request = requestBody(usable.value, turns.value, Boolean(can.value.reasoning_optional));
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
    alternatives,
  };
  const abort = new AbortController();
  stopping = abort;
  batch(() => {
    turns.value = [...turns.value, current];
    running.value = current;
  });
  try {
    const rendering = loadMarkdown().catch(() => undefined);
    const response = await post(CHAT, request, key.value, abort.signal);
    await rendering;
    current.requestId = response.headers.get("x-request-id") ?? undefined;
    const onComment = (comment: string) => {
      current.queuePosition = queuePosition(comment) ?? current.queuePosition;
      grow();
    };
    const onChunk = (chunk: Chunk) => {
      addChunk(current, chunk, performance.now());
      grow();
    };
    await readStream(response, onChunk, onComment);
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
