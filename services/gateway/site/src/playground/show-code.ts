/** Renders a request as a program that sends it. */

export type CodeLanguage = "python" | "javascript" | "bash";
type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

const LONGEST_LINE = 88;

export function codeFor(language: CodeLanguage, path: string, body: Record<string, unknown>, baseUrl: string): string {
  return { python, javascript, bash }[language](path, body as { [name: string]: Json }, baseUrl);
}

/** Returns the part of the SDK's client for a path. */
function resourceOf(path: string): string {
  return isChat(path) ? "chat.completions" : "embeddings";
}

/** Returns the name of the variable for the result of a request. */
function resultName(path: string, fields: { [name: string]: Json }): string {
  return isChat(path) && fields.stream ? "stream" : "answer";
}

function python(path: string, body: { [name: string]: Json }, baseUrl: string): string {
  const { stream_options: _, ...fields } = body;
  const values = Object.entries(fields).map(([name, value]) => `    ${name}=${pythonValue(value, 1)},\n`);
  return `import os

from openai import OpenAI

client = OpenAI(
    base_url=${JSON.stringify(baseUrl)},
    api_key=os.environ["VILIX_API_KEY"],
)

${resultName(path, fields)} = client.${resourceOf(path)}.create(
${values.join("")})
${
  !isChat(path)
    ? "print(len(answer.data[0].embedding))\n"
    : fields.stream
      ? `for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
`
      : "print(answer.choices[0].message.content)\n"
}`;
}

function javascript(path: string, body: { [name: string]: Json }, baseUrl: string): string {
  const { stream_options: _, ...fields } = body;
  return `import OpenAI from "openai";

const client = new OpenAI({
  baseURL: ${JSON.stringify(baseUrl)},
  apiKey: process.env.VILIX_API_KEY,
});

const ${resultName(path, fields)} = await client.${resourceOf(path)}.create(${javascriptValue(fields, 0)});
${
  !isChat(path)
    ? "console.log(answer.data[0].embedding.length);\n"
    : fields.stream
      ? `for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
`
      : "console.log(answer.choices[0].message.content);\n"
}`;
}

function bash(path: string, body: { [name: string]: Json }, baseUrl: string): string {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''").replaceAll("\n", "\n  ");
  return `curl ${body.stream ? "-N " : ""}${baseUrl}${path} \\
  -H "Authorization: Bearer $VILIX_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '${json}'
`;
}

function isChat(path: string): boolean {
  return path === "/chat/completions";
}

/** Returns a value as Python writes it. */
export function pythonValue(value: Json, depth: number): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return container(value, depth, "    ", pythonValue, (name) => JSON.stringify(name), true) ?? JSON.stringify(value);
}

/** Returns a value as JavaScript writes it. */
export function javascriptValue(value: Json, depth: number): string {
  const key = (name: string) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));
  return container(value, depth, "  ", javascriptValue, key, false) ?? JSON.stringify(value);
}

/** Renders a list or an object, on one line if it fits. */
function container(
  value: Json,
  depth: number,
  indent: string,
  inner: (value: Json, depth: number) => string,
  key: (name: string) => string,
  isTight: boolean,
): string | undefined {
  if (value === null || typeof value !== "object") return undefined;
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const items = isList
    ? value.map((item) => inner(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${key(name)}: ${inner(item, depth + 1)}`);
  if (items.length === 0) return `${open}${close}`;
  const padding = isList || isTight ? "" : " ";
  const line = `${open}${padding}${items.join(", ")}${padding}${close}`;
  if (!line.includes("\n") && line.length + depth * indent.length <= LONGEST_LINE) return line;
  const margin = indent.repeat(depth + 1);
  return `${open}\n${items.map((item) => `${margin}${item},\n`).join("")}${indent.repeat(depth)}${close}`;
}
