import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { language } from "../../language.ts";
import { asJson, asMarkdown } from "../export.ts";
import {
  can,
  change,
  chatModels,
  currentRequest,
  growth,
  model,
  running,
  settings,
  startOver,
  stop,
  turns,
} from "../store.ts";
import { words } from "../words.ts";
import { AnswerView } from "./answer.tsx";
import { CodeDialog } from "./code-dialog.tsx";
import { Composer } from "./composer.tsx";
import { Icon } from "./icons.tsx";
import { KeyBox, useIsKeyAsked } from "./key-box.tsx";
import { KeyQuestion } from "./key-question.tsx";
import { QuestionView } from "./question.tsx";
import { SettingsPanel } from "./settings-panel.tsx";
import { ToolResultForm, ToolResultView } from "./tool-result.tsx";
import { Welcome } from "./welcome.tsx";

const NEAR_END = 90;

export function Chat() {
  const isPanelOpen = useSignal(false);
  const isKeyAsked = useIsKeyAsked();
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  const displayedRequest = useSignal<Record<string, unknown> | undefined>(undefined);
  return (
    <div class={isPanelOpen.value ? "chat panel-open" : "chat"}>
      <div class="talk">
        <div class="talk-bar">
          <ModelChoice />
          <div class="talk-tools">
            <button
              type="button"
              class="icon"
              disabled={turns.value.length === 0}
              onClick={() => {
                displayedRequest.value = currentRequest();
              }}
            >
              <Icon name="code" />
              <span>{words.showCodeShort}</span>
            </button>
            <ExportButtons />
            <button type="button" class="icon" disabled={turns.value.length === 0} onClick={startOver}>
              <Icon name="plus" />
              <span>{words.newChat}</span>
            </button>
            <button
              type="button"
              class="icon panel-toggle"
              aria-expanded={isPanelOpen.value}
              onClick={() => {
                isPanelOpen.value = !isPanelOpen.value;
              }}
            >
              <Icon name="settings" />
              <span>{words.settings}</span>
            </button>
          </div>
        </div>
        <KeyQuestion />
        <Turns
          onShowCode={(request) => {
            displayedRequest.value = request;
          }}
        />
        {turns.value.length > 0 && isKeyAsked && (
          <div class="talk-key">
            <KeyBox id="talk-key" />
          </div>
        )}
        <Composer />
      </div>
      <SettingsPanel
        onClose={() => {
          isPanelOpen.value = false;
        }}
      />
      {displayedRequest.value && (
        <CodeDialog
          path="/chat/completions"
          body={displayedRequest.value}
          onClose={() => {
            displayedRequest.value = undefined;
          }}
        />
      )}
    </div>
  );
}

function ModelChoice() {
  const description = model.value?.descriptions?.[language];
  return (
    <div class="model-choice">
      <ModelSelector />
      {description && <p class="model-description">{description}</p>}
    </div>
  );
}

function ModelSelector() {
  return (
    <label>
      <span class="unseen">{words.model}</span>
      <select dir="ltr" value={settings.value.model} onChange={(event) => change({ model: event.currentTarget.value })}>
        {chatModels.value.length === 0 && <option value="">{words.noModel}</option>}
        {chatModels.value.map(({ id, available }) => (
          <option key={id} value={id}>
            {available ? id : `${id} (${words.away})`}
          </option>
        ))}
      </select>
    </label>
  );
}

function ExportButtons() {
  const names = { user: words.you, reasoning: words.reasoning, tool: words.toolResult, call: words.toolCall };
  return (
    <details class="menu">
      <summary class="icon" aria-disabled={turns.value.length === 0}>
        <Icon name="download" />
        <span>{words.export}</span>
      </summary>
      <div>
        <button type="button" onClick={() => save("md", asMarkdown(turns.value, settings.value.system, names))}>
          {words.exportMarkdown}
        </button>
        <button type="button" onClick={() => save("json", asJson(turns.value, settings.value.system))}>
          {words.exportJson}
        </button>
      </div>
    </details>
  );
}

function save(suffix: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = `vilix-${new Date().toISOString().slice(0, 16).replaceAll(":", "-")}.${suffix}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function Turns({ onShowCode }: { onShowCode: (request: Record<string, unknown>) => void }) {
  const list = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const count = turns.value.length;

  // New text stays in view, unless the reader has scrolled back.
  useEffect(() => {
    isAtEnd.current = true;
  }, [count]);
  useEffect(() =>
    growth.subscribe(() => {
      const element = list.current;
      if (element && isAtEnd.current)
        requestAnimationFrame(() => element.scrollTo({ top: element.scrollHeight, behavior: "instant" }));
    }),
  );
  useEffect(() => {
    list.current?.scrollTo({ top: list.current.scrollHeight, behavior: "instant" });
  }, [count]);

  if (count === 0) return <Welcome />;
  return (
    <div
      class="turns"
      ref={list}
      role="log"
      aria-live="off"
      aria-label={words.conversation}
      aria-busy={running.value !== undefined}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard
      tabIndex={0}
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        isAtEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END;
      }}
    >
      <div class="turns-inner">
        {turns.value.map((turn) => {
          if (turn.role === "user") return <QuestionView key={turn.id} question={turn} />;
          if (turn.role === "tool") return <ToolResultView key={turn.id} result={turn} />;
          return <AnswerView key={turn.id} answer={turn} onShowCode={() => onShowCode(turn.request)} />;
        })}
        {can.value.tools !== undefined && <ToolResultForm />}
      </div>
    </div>
  );
}
