import { apiUrl, type Capability, listModels, modelWith } from "../api.ts";

const CAPABILITIES: Record<string, Capability> = {
  model: "chat",
  reasoning_model: "reasoning",
  structured_model: "structured_output",
  tools_model: "tools",
  vision_model: "vision",
  embedding_model: "embeddings",
};

/** Replaces the placeholders in the examples by this site's URL and models, so that the examples run unchanged. */
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
  for (const element of document.querySelectorAll(`[data-fill="${name}"]`)) element.textContent = text;
}
