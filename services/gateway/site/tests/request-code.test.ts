import assert from "node:assert/strict";
import test from "node:test";
import { openApi } from "../build/reference.ts";
import { requestCode } from "../build/request-code.ts";

const operations = Object.entries(openApi().paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { requestBody }]) => {
    const examples = Object.values(Object.values(requestBody?.content ?? {})[0]?.examples ?? {});
    const body = examples[0]?.value as Record<string, never> | undefined;
    const parameters: Record<string, string> = path.includes("{id}") ? { id: "the-id" } : {};
    return { method, path, body, parameters };
  }),
);

test("every operation has a program in each language that names its path or the SDK's method", () => {
  for (const operation of operations) {
    const { python, javascript, bash } = requestCode(operation);
    const id = operation.path.startsWith("/models/") ? "__MODEL__" : "the-id";
    const path = operation.path.replace("{id}", id);
    assert.match(bash, new RegExp(`__BASE_URL__${path}`));
    assert.match(python, /client\.\w+/);
    assert.match(javascript, /await client\.\w+/);
    if (path.includes(id)) for (const text of [python, javascript]) assert.match(text, new RegExp(`["/]${id}"`));
  }
});

test("programs ask for a model that the page fills in", () => {
  const [operation] = operations.filter(({ path }) => path === "/embeddings");
  assert.ok(operation);
  for (const text of Object.values(requestCode(operation))) assert.match(text, /"__EMBEDDING_MODEL__"/);
});

test("Anthropic's operations use Anthropic's SDK", () => {
  const [operation] = operations.filter(({ path }) => path === "/messages");
  assert.ok(operation);
  const { python, javascript } = requestCode(operation);
  assert.match(python, /from anthropic import Anthropic/);
  assert.match(javascript, /from "@anthropic-ai\/sdk"/);
});

test("a quote in an example does not end the body that a shell sends", () => {
  const body = { input: "it's" } as unknown as Record<string, never>;
  const { bash } = requestCode({ method: "post", path: "/embeddings", body, parameters: {} });
  assert.match(bash, /it'\\''s/);
});
