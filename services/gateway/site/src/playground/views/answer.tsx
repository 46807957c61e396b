import { useSignal } from "@preact/signals";
import { copyText } from "../../clipboard.ts";
import { number } from "../../language.ts";
import type { Answer } from "../conversation.ts";
import { growth, retry, running } from "../store.ts";
import { words } from "../words.ts";
import { Icon } from "./icons.tsx";
import { Markdown } from "./markdown.tsx";
import { ProblemView } from "./problem.tsx";
import { Timeline } from "./timeline.tsx";

/** What a screen reader says of an end. A failure is an alert of its own. */
const endings: Partial<Record<Answer["status"], string>> = { complete: words.done, stopped: words.stopped };

export function AnswerView({ answer, onShowCode }: { answer: Answer; onShowCode: () => void }) {
  // The answer itself is changed in place; this says when.
  if (answer.status === "running") growth.value;
  const announced = useSignal("");
  const isOver = answer.status !== "running";
  const announce = (text: string) => {
    announced.value = text;
  };
  return (
    <article class={`turn answer ${answer.status}`} aria-label={answer.model} data-status={answer.status}>
      <p class="speaker" dir="ltr">
        {answer.model}
      </p>
      {answer.thought !== "" && <Thought answer={answer} />}
      {answer.times.first === undefined && !isOver && <p class="state">{words.waiting}</p>}
      {answer.text !== "" && (
        <Markdown text={() => answer.text} isComplete={() => answer.status !== "running"} onStable={announce} />
      )}
      {answer.calls.map((call) => (
        <section class="call" key={call.id} aria-label={call.name}>
          <p>
            <Icon name="tool" /> {words.toolCall} <code dir="ltr">{call.name}</code>
          </p>
          <pre dir="ltr">
            <code>{call.arguments}</code>
          </pre>
        </section>
      ))}
      {answer.problem && <ProblemView problem={answer.problem} />}
      {answer.finishReason === "length" && <p class="notice">{words.cutByLength}</p>}
      {answer.status === "stopped" && <p class="notice">{words.stopped}</p>}
      {isOver && <Timeline answer={answer} />}
      {isOver && (
        <p class="acts">
          {answer.text !== "" && (
            <button type="button" class="act" onClick={() => void copyText(answer.text)}>
              <Icon name="copy" />
              {words.copy}
            </button>
          )}
          <button type="button" class="act" disabled={running.value !== undefined} onClick={() => retry(answer.id)}>
            <Icon name="retry" />
            {words.retry}
          </button>
          <button type="button" class="act" onClick={onShowCode}>
            <Icon name="code" />
            {words.showCodeShort}
          </button>
        </p>
      )}
      <p class="unseen" aria-live="polite">
        {`${announced.value} ${endings[answer.status] ?? ""}`}
      </p>
    </article>
  );
}

function Thought({ answer }: { answer: Answer }) {
  if (answer.status === "running") growth.value;
  const { times } = answer;
  const isThinking = times.answer === undefined && answer.status === "running";
  const chosen = useSignal<boolean | undefined>(undefined);
  const isOpen = chosen.value ?? isThinking;
  const seconds = ((times.answer ?? times.end ?? performance.now()) - (times.first ?? times.sent)) / 1000;
  return (
    <section class={isThinking ? "thought thinking" : "thought"}>
      <button
        type="button"
        aria-expanded={isOpen}
        onClick={() => {
          chosen.value = !isOpen;
        }}
      >
        <span class="chevron" aria-hidden="true" />
        {isThinking ? words.thinkingNow : words.thoughtFor(number(seconds, 1))}
      </button>
      <div class="thought-text" hidden={!isOpen}>
        <Markdown
          text={() => answer.thought}
          isComplete={() => answer.times.answer !== undefined || answer.status !== "running"}
          onStable={() => undefined}
        />
      </div>
    </section>
  );
}
