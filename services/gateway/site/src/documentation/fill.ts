import { apiUrl, type Capability, listModels, modelWith } from "../api.ts";

const CAPABILITIES: Record<string, Capability> = {
  model: "chat",
  thinking_model: "reasoning",
  structured_model: "structured_output",
  tools_model: "tools",
  vision_model: "vision",
  embedding_model: "embeddings",
};

/** Puts this site's own address and models into the examples, so that they run as they stand. */
export async function fill(): Promise<void> {
  put("base_url", apiUrl);
  const models = await listModels().catch(() => []);
  for (const [name, capability] of Object.entries(CAPABILITIES)) {
    const model = modelWith(models, capability);
    if (model) put(name, model.id);
  }
  document.documentElement.dataset.filled = "";
}

function put(name: string, text: string): void {
  for (const place of document.querySelectorAll(`[data-fill="${name}"]`)) place.textContent = text;
}
