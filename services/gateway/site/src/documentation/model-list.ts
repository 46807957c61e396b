import { type Capability, listModels, type Model, watchModels } from "../api.ts";
import { language, number } from "../language.ts";

const TEXTS = {
  fa: {
    available: "آمادهٔ پاسخ",
    away: "اکنون در دسترس نیست",
    context: (tokens: string) => `${tokens} توکن`,
    dimensions: (count: string) => `${count} بُعد`,
    none: "هنوز مدلی نیست.",
    failed: "فهرست مدل‌ها دریافت نشد. صفحه را تازه کنید.",
    capabilities: {
      chat: "گفت‌وگو",
      reasoning: "فکر",
      tools: "ابزار",
      vision: "تصویر",
      structured_output: "خروجی ساختاریافته",
      embeddings: "بردار معنایی",
    },
  },
  en: {
    available: "ready",
    away: "not available now",
    context: (tokens: string) => `${tokens} tokens`,
    dimensions: (count: string) => `${count} dimensions`,
    none: "There are no models yet.",
    failed: "The list of models could not be loaded. Reload the page.",
    capabilities: {
      chat: "chat",
      reasoning: "reasoning",
      tools: "tools",
      vision: "images",
      structured_output: "structured output",
      embeddings: "embeddings",
    },
  },
} satisfies Record<string, { capabilities: Partial<Record<Capability, string>> } & Record<string, unknown>>;

/** Displays the models, and follows their availability. */
export async function showModels(): Promise<void> {
  const container = document.querySelector("#model-list");
  if (!container) return;
  const texts = TEXTS[language];
  watchModels((models) => {
    container.replaceChildren(...(models.length ? models.map(card) : [element("p", "quiet", texts.none)]));
    container.ariaBusy = "false";
  });
  await listModels().catch(() => {
    container.replaceChildren(element("p", "quiet", texts.failed));
    container.ariaBusy = "false";
  });
}

function card(model: Model): HTMLElement {
  const texts = TEXTS[language];
  const box = element("article", model.available ? "model" : "model away");
  const name = element("h3", "", "");
  name.append(Object.assign(element("bdi", "", model.id), { dir: "ltr" }));
  const labels = Object.entries(texts.capabilities)
    .filter(([capability]) => model.capabilities?.[capability as Capability])
    .map(([, label]) => label);
  if (model.context_length) labels.push(texts.context(number(model.context_length)));
  if (model.dimensions) labels.push(texts.dimensions(number(model.dimensions)));
  const list = element("ul");
  list.append(...labels.map((label) => element("li", "", label)));
  box.append(name, element("span", "state", model.available ? texts.available : texts.away));
  const description = model.descriptions?.[language];
  if (description) box.append(element("p", "", description));
  if (model.checkpoint) {
    // The name of the weights, which are another model's where an operator serves a file of their own.
    const checkpoint = element("p", "checkpoint");
    checkpoint.append(Object.assign(element("bdi", "", model.checkpoint), { dir: "ltr" }));
    box.append(checkpoint);
  }
  if (labels.length) box.append(list);
  return box;
}

function element(tag: string, className = "", text = ""): HTMLElement {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
