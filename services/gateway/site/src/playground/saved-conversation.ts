/** The conversation as this tab keeps it over a reload, or a change of the language. The key is stored elsewhere. */
import type { Settings, Turn } from "./conversation.ts";

const PLACE = "vilix-conversation";
const VERSION = 1;

interface Saved {
  version: number;
  settings: Settings;
  turns: Turn[];
}

/** Returns the conversation that was saved, if there is one that this version of the page can read. */
export function savedConversation(): Saved | undefined {
  try {
    const saved = JSON.parse(sessionStorage.getItem(PLACE) ?? "null") as Saved | null;
    return saved?.version === VERSION ? saved : undefined;
  } catch {
    return undefined;
  }
}

/** Saves a conversation. An answer that is still being written will be a stopped one. */
export function saveConversation(settings: Settings, turns: readonly Turn[]): void {
  const ended = turns.map((turn) =>
    turn.role === "assistant" && turn.status === "running"
      ? { ...turn, status: "stopped", times: { ...turn.times, end: performance.now() } }
      : turn,
  );
  try {
    sessionStorage.setItem(PLACE, JSON.stringify({ version: VERSION, settings, turns: ended }));
  } catch {
    // There is no storage, or the images are larger than it. An older part of the conversation would mislead.
    forget();
  }
}

function forget(): void {
  try {
    sessionStorage.removeItem(PLACE);
  } catch {
    // Without storage, there is nothing to remove.
  }
}
