import { apiUrl, listModels, modelWith } from "../api.ts";
import { cleanKey, storedKey, storeKey } from "../key-storage.ts";

/** Makes the forms of the reference work, which send a request with the visitor's key. */
export function tryIt(): void {
  for (const details of document.querySelectorAll<HTMLDetailsElement>(".try-it")) {
    details.hidden = false;
    const form = details.querySelector("form") as HTMLFormElement;
    details.addEventListener("toggle", () => void prepare(details, form));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void send(details, form);
    });
  }
}

/** Fills in the key, and a model that is served. */
async function prepare(details: HTMLDetailsElement, form: HTMLFormElement): Promise<void> {
  if (!details.open) return;
  const key = field(form, "key");
  if (key && !key.value) key.value = storedKey();
  const models = await listModels().catch(() => []);
  const capability = details.dataset.path === "/embeddings" ? "embeddings" : "chat";
  const model = modelWith(models, capability)?.id;
  const body = field(form, "body");
  if (!model) return;
  // What the visitor has changed stays.
  if (body && body.value === body.defaultValue)
    body.value = body.value.replace(/^( {2}"model": )".*?"/m, (_, name: string) => `${name}${JSON.stringify(model)}`);
  const id = field(form, "id");
  if (details.dataset.path === "/models/{id}" && id && !id.value) id.value = model;
}

async function send(details: HTMLDetailsElement, form: HTMLFormElement): Promise<void> {
  const status = form.querySelector('[role="status"]') as HTMLElement;
  const output = form.querySelector("pre") as HTMLElement;
  const code = output.querySelector("code") as HTMLElement;
  const stop = form.querySelector("[data-stop]") as HTMLButtonElement;
  const submit = form.querySelector('[type="submit"]') as HTMLButtonElement;
  const body = field(form, "body")?.value;
  code.textContent = "";
  output.hidden = true;
  if (body !== undefined) {
    const problem = problemOf(body);
    if (problem) {
      status.textContent = `${status.dataset.badJson} ${problem}`;
      return;
    }
  }
  const key = cleanKey(field(form, "key")?.value ?? "");
  storeKey(key);
  const abort = new AbortController();
  stop.onclick = () => abort.abort();
  submit.disabled = true;
  stop.hidden = false;
  status.textContent = "…";
  const began = performance.now();
  try {
    const response = await fetch(urlOf(details, form), {
      method: details.dataset.method ?? "GET",
      headers: {
        Authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        "Accept-Language": document.documentElement.lang,
      },
      signal: abort.signal,
      ...(body === undefined ? {} : { body }),
    });
    output.hidden = false;
    await show(response, code);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    status.textContent = `${response.status} · ${seconds} ${status.dataset.seconds}`;
  } catch {
    status.textContent = (abort.signal.aborted ? status.dataset.stopped : status.dataset.unreachable) ?? "";
  } finally {
    submit.disabled = false;
    stop.hidden = true;
  }
}

/** Shows a stream as it arrives, and JSON with indentation. */
async function show(response: Response, code: HTMLElement): Promise<void> {
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
  if (isStream && response.body) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) code.append(part.value);
    return;
  }
  const text = await response.text();
  try {
    code.textContent = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    code.textContent = text;
  }
}

function urlOf(details: HTMLDetailsElement, form: HTMLFormElement): string {
  const path = (details.dataset.path ?? "").replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(field(form, name)?.value.trim() ?? ""),
  );
  return apiUrl + path;
}

function field(form: HTMLFormElement, name: string): HTMLInputElement | HTMLTextAreaElement | undefined {
  const element = form.elements.namedItem(name);
  return element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement ? element : undefined;
}

/** Returns what is wrong with a text as JSON; empty if nothing is. */
function problemOf(text: string): string {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}
