import { useSignal } from "@preact/signals";
import { words } from "../words.ts";
import { Chat } from "./chat.tsx";
import { Vectors } from "./vectors.tsx";

const TABS = ["chat", "vectors"] as const;

export function Playground() {
  const tab = useSignal<(typeof TABS)[number]>("chat");
  return (
    <div class="lab">
      <h1 class="unseen">{words.playground}</h1>
      <div class="lab-tabs" role="tablist" aria-label={words.conversation}>
        {TABS.map((name) => (
          <button
            type="button"
            role="tab"
            key={name}
            id={`lab-tab-${name}`}
            aria-controls={`lab-${name}`}
            aria-selected={tab.value === name}
            tabIndex={tab.value === name ? 0 : -1}
            onClick={() => {
              tab.value = name;
            }}
          >
            {words[name]}
          </button>
        ))}
      </div>
      <div class="lab-panel" role="tabpanel" id="lab-chat" aria-labelledby="lab-tab-chat" hidden={tab.value !== "chat"}>
        <Chat />
      </div>
      <div
        class="lab-panel"
        role="tabpanel"
        id="lab-vectors"
        aria-labelledby="lab-tab-vectors"
        hidden={tab.value !== "vectors"}
      >
        <Vectors />
      </div>
    </div>
  );
}
