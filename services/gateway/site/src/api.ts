/** The URL of the API, and its list of models, which needs no key. */

export interface Model {
  id: string;
  available: boolean;
  context_length?: number;
  capabilities?: Partial<
    Record<
      "chat" | "reasoning" | "reasoning_optional" | "tools" | "vision" | "structured_output" | "embeddings",
      boolean
    >
  >;
  supported_parameters?: string[];
  dimensions?: number;
  checkpoint?: string;
  descriptions?: Record<string, string>;
}

export type Capability = keyof NonNullable<Model["capabilities"]>;

/** The base URL of the API, without a slash at its end. */
export const apiUrl = new URL(meta("vilix-api"), document.baseURI).href.replace(/\/$/, "");

/** Milliseconds between two requests for the models while the page is visible. */
const POLL = 15_000;

let models: Promise<Model[]> | undefined;

/** Returns the models, which are requested once. */
export function listModels(): Promise<Model[]> {
  models ??= fetchModels().catch((error: unknown) => {
    models = undefined;
    throw error;
  });
  return models;
}

/** Calls `onChange` with the models, and again whenever they have changed. A failed request changes nothing. */
export function watchModels(onChange: (models: Model[]) => void): void {
  watchers.push(onChange);
  void listModels().then(onChange, () => undefined);
  if (watchers.length > 1) return;
  const refresh = async () => {
    if (document.hidden) return;
    const before = await listModels().catch(() => []);
    const now = await fetchModels().catch(() => before);
    if (JSON.stringify(now) === JSON.stringify(before)) return;
    models = Promise.resolve(now);
    for (const watcher of watchers) watcher(now);
  };
  setInterval(refresh, POLL);
  addEventListener("focus", refresh);
  document.addEventListener("visibilitychange", refresh);
}

const watchers: ((models: Model[]) => void)[] = [];

/** Returns a model with a capability, preferably an available one. */
export function modelWith(list: Model[], capability: Capability): Model | undefined {
  const able = list.filter((model) => model.capabilities?.[capability]);
  return able.find((model) => model.available) ?? able[0];
}

async function fetchModels(): Promise<Model[]> {
  const url = new URL(`${meta("vilix-root")}site/models.json`, document.baseURI);
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`models.json returned status ${response.status}`);
  return ((await response.json()) as { models: Model[] }).models;
}

function meta(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? "";
}
