import type { Turn } from "./conversation.ts";

export interface SpeakerNames {
  user: string;
  reasoning: string;
  tool: string;
  call: string;
}

/** Renders a conversation as Markdown for readers. */
export function asMarkdown(turns: readonly Turn[], system: string, names: SpeakerNames): string {
  const parts = turns.map((turn) => {
    if (turn.role === "user") return `## ${names.user}\n\n${turn.text}`;
    if (turn.role === "tool") return `## ${names.tool}: ${turn.name}\n\n${fenced(turn.text, "json")}`;
    const reasoning = turn.reasoning
      ? `> **${names.reasoning}**\n>\n${turn.reasoning.trim().replace(/^/gm, "> ")}\n\n`
      : "";
    const calls = turn.calls.map((call) => `${names.call} \`${call.name}\`\n\n${fenced(call.arguments, "json")}`);
    return `## ${turn.model}\n\n${reasoning}${[turn.text.trim(), ...calls].filter(Boolean).join("\n\n")}`;
  });
  return `${[...(system.trim() ? [`> ${system.trim().replaceAll("\n", "\n> ")}`] : []), ...parts].join("\n\n")}\n`;
}

/** Renders a conversation as messages of the API, with details of each answer. */
export function asJson(turns: readonly Turn[], system: string): string {
  const messages = turns.map((turn) => {
    if (turn.role === "user") return { role: "user", content: turn.text, images: turn.images };
    if (turn.role === "tool") return { role: "tool", tool_call_id: turn.callId, content: turn.text };
    const { model, text, reasoning, calls, finishReason, usage, requestId, status } = turn;
    return {
      role: "assistant",
      content: text,
      reasoning_content: reasoning,
      tool_calls: calls,
      vilix: { model, status, finish_reason: finishReason, usage, request_id: requestId },
    };
  });
  return `${JSON.stringify({ system, messages }, null, 2)}\n`;
}

function fenced(text: string, language: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\``;
}
