/** Programs that send an operation's example, in each language of the tabs. */
import { javascriptValue, pythonValue } from "../src/playground/show-code.ts";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** An operation, as far as a program needs it. */
export interface Call {
  method: string;
  path: string;
  /** The example's body, if the operation has one. */
  body: { [name: string]: Json } | undefined;
  /** Values of the path's parameters. */
  parameters: Record<string, string>;
}

/** What OpenAI's SDKs call the operations that they know: the Python method, and the JavaScript one. */
const OPENAI: Record<string, [string, string]> = {
  "post /chat/completions": ["chat.completions.create", "chat.completions.create"],
  "post /completions": ["completions.create", "completions.create"],
  "post /embeddings": ["embeddings.create", "embeddings.create"],
  "post /responses": ["responses.create", "responses.create"],
  "post /responses/input_tokens": ["responses.input_tokens.count", "responses.inputTokens.count"],
  "get /responses/{id}": ["responses.retrieve", "responses.retrieve"],
  "delete /responses/{id}": ["responses.delete", "responses.delete"],
  "post /responses/{id}/cancel": ["responses.cancel", "responses.cancel"],
  "get /responses/{id}/input_items": ["responses.input_items.list", "responses.inputItems.list"],
  "get /models": ["models.list", "models.list"],
  "get /models/{id}": ["models.retrieve", "models.retrieve"],
};
/** The same for Anthropic's SDKs. */
const ANTHROPIC: Record<string, [string, string]> = {
  "post /messages": ["messages.create", "messages.create"],
  "post /messages/count_tokens": ["messages.count_tokens", "messages.countTokens"],
};

const isAnthropic = ({ method, path }: Call) => `${method} ${path}` in ANTHROPIC;

/** Returns the programs by language, with the placeholders of examples. */
export function requestCode(call: Call): Record<"python" | "javascript" | "bash", string> {
  const body = call.body && withPlaceholder(call.path, call.body);
  const parameters = call.path === "/models/{id}" ? { id: "__MODEL__" } : call.parameters;
  const filled = { ...call, body, parameters };
  return { python: python(filled), javascript: javascript(filled), bash: bash(filled) };
}

/** Replaces the example's model by a placeholder, which the page fills with a model that is served. */
function withPlaceholder(path: string, body: { [name: string]: Json }): { [name: string]: Json } {
  return { ...body, model: path === "/embeddings" ? "__EMBEDDING_MODEL__" : "__MODEL__" };
}

function python(call: Call): string {
  const names = OPENAI[`${call.method} ${call.path}`] ?? ANTHROPIC[`${call.method} ${call.path}`];
  const [program, name] = isAnthropic(call) ? ["anthropic", "Anthropic"] : ["openai", "OpenAI"];
  const fields = Object.entries(call.body ?? {}).map(([key, value]) => `    ${key}=${pythonValue(value, 1)},\n`);
  const values = Object.values(call.parameters).map((value) => JSON.stringify(value));
  const own = call.body
    ? `client.post(\n    "${call.path}",\n    cast_to=object,\n    body=${pythonValue(call.body, 1)},\n)`
    : `client.get("${filledPath(call)}", cast_to=object)`;
  const known = fields.length ? `(\n${fields.join("")})` : `(${values.join(", ")})`;
  return `import os

from ${program} import ${name}

client = ${name}(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)
answer = ${names ? `client.${names[0]}${known}` : own}
print(answer)
`;
}

function javascript(call: Call): string {
  const names = OPENAI[`${call.method} ${call.path}`] ?? ANTHROPIC[`${call.method} ${call.path}`];
  const [program, name] = isAnthropic(call) ? ["@anthropic-ai/sdk", "Anthropic"] : ["openai", "OpenAI"];
  const values = Object.values(call.parameters).map((value) => JSON.stringify(value));
  const body = call.body && javascriptValue(call.body, 0);
  const own = body ? `post("${call.path}", { body: ${body} })` : `get("${filledPath(call)}")`;
  return `import ${name} from "${program}";

const client = new ${name}({
  baseURL: "__BASE_URL__",
  apiKey: process.env.VILIX_API_KEY,
});
const answer = await client.${names ? `${names[1]}(${body ?? values.join(", ")})` : own};
console.log(answer);
`;
}

function filledPath(call: Call): string {
  return Object.entries(call.parameters).reduce((text, [name, value]) => text.replace(`{${name}}`, value), call.path);
}

function bash(call: Call): string {
  const path = filledPath(call);
  const method = { get: "", post: call.body ? "" : "-X POST " }[call.method] ?? `-X ${call.method.toUpperCase()} `;
  const lines = [`curl ${method}__BASE_URL__${path}`, '  -H "Authorization: Bearer $VILIX_API_KEY"'];
  if (call.body) {
    const json = JSON.stringify(call.body, null, 2).replaceAll("'", "'\\''").replaceAll("\n", "\n  ");
    lines.push('  -H "Content-Type: application/json"', `  -d '${json}'`);
  }
  return `${lines.join(" \\\n")}\n`;
}
