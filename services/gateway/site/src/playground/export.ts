import type { Turn } from "./conversation.ts";

export interface SpeakerNames {
  user: string;
  thought: string;
  tool: string;
  call: string;
}

/** A conversation as Markdown, for people. */
export function asMarkdown(turns: readonly Turn[], system: string, names: SpeakerNames): string {
  const parts = turns.map((turn) => {
    if (turn.role === "user") return `## ${names.user}\n\n${turn.text}`;
    if (turn.role === "tool") return `## ${names.tool}: ${turn.name}\n\n${fenced(turn.text, "json")}`;
    const thought = turn.thought ? `> **${names.thought}**\n>\n${turn.thought.trim().replace(/^/gm, "> ")}\n\n` : "";
    const calls = turn.calls.map((call) => `${names.call} \`${call.name}\`\n\n${fenced(call.arguments, "json")}`);
    return `## ${turn.model}\n\n${thought}${[turn.text.trim(), ...calls].filter(Boolean).join("\n\n")}`;
  });
  return `${[...(system.trim() ? [`> ${system.trim().replaceAll("\n", "\n> ")}`] : []), ...parts].join("\n\n")}\n`;
}

/** A conversation as the API's messages, with what is known about each answer. */
export function asJson(turns: readonly Turn[], system: string): string {
  const messages = turns.map((turn) => {
    if (turn.role === "user") return { role: "user", content: turn.text, images: turn.images };
    if (turn.role === "tool") return { role: "tool", tool_call_id: turn.callId, content: turn.text };
    const { model, text, thought, calls, finishReason, usage, requestId, status } = turn;
    return {
      role: "assistant",
      content: text,
      reasoning_content: thought,
      tool_calls: calls,
      vilix: { model, status, finish_reason: finishReason, usage, request_id: requestId },
    };
  });
  return `${JSON.stringify({ system, messages }, null, 2)}\n`;
}

function fenced(text: string, language: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\``;
}
