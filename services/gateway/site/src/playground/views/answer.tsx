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

/** Announcements for screen readers when an answer ends. A failure has a separate alert. */
const endings: Partial<Record<Answer["status"], string>> = { complete: words.done, stopped: words.stopped };

export function AnswerView({ answer, onShowCode }: { answer: Answer; onShowCode: () => void }) {
  // The answer is changed in place; reading `growth` renders it again.
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
      {answer.reasoning !== "" && <Reasoning answer={answer} />}
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

function Reasoning({ answer }: { answer: Answer }) {
  if (answer.status === "running") growth.value;
  const { times } = answer;
  const isReasoning = times.answer === undefined && answer.status === "running";
  const chosen = useSignal<boolean | undefined>(undefined);
  const isOpen = chosen.value ?? isReasoning;
  const seconds = ((times.answer ?? times.end ?? performance.now()) - (times.first ?? times.sent)) / 1000;
  return (
    <section class={isReasoning ? "reasoning running" : "reasoning"}>
      <button
        type="button"
        aria-expanded={isOpen}
        onClick={() => {
          chosen.value = !isOpen;
        }}
      >
        <span class="chevron" aria-hidden="true" />
        {isReasoning ? words.reasoningNow : words.reasonedFor(number(seconds, 1))}
      </button>
      <div class="reasoning-text" hidden={!isOpen}>
        <Markdown
          text={() => answer.reasoning}
          isComplete={() => answer.times.answer !== undefined || answer.status !== "running"}
          onStable={() => undefined}
        />
      </div>
    </section>
  );
}
