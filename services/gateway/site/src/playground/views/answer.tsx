import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { copyText } from "../../clipboard.ts";
import { language, number } from "../../language.ts";
import { type Answer, asMarkdownText, isJsonAnswer, prettyJson, versionsOf } from "../conversation.ts";
import { promptTokens } from "../requests.ts";
import { chooseVersion, growth, key, retry, running } from "../store.ts";
import { words } from "../words.ts";
import { Icon } from "./icons.tsx";
import { Markdown } from "./markdown.tsx";
import { ProblemView } from "./problem.tsx";
import { ReceiptView } from "./receipt.tsx";
import { Timeline } from "./timeline.tsx";

/** The seconds of waiting after which the size of the prompt is asked for and displayed. */
const LONG_WAIT = 5;

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
      {answer.times.first === undefined && !isOver && <Waiting answer={answer} />}
      {answer.text !== "" && (
        <Markdown
          text={() => asMarkdownText(answer)}
          isComplete={() => answer.status !== "running"}
          onStable={announce}
        />
      )}
      {isOver && answer.text !== "" && isJsonAnswer(answer) && <Validity text={answer.text} />}
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
      {isOver && answer.requestId && <ReceiptView requestId={answer.requestId} />}
      {isOver && (
        <p class="acts">
          {answer.text !== "" && (
            <button type="button" class="act" onClick={() => void copyText(answer.text)}>
              <Icon name="copy" />
              {words.copy}
            </button>
          )}
          <Versions answer={answer} />
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

/** The time since a request was sent, its place in the queue, and after a while what the model has to read. */
function Waiting({ answer }: { answer: Answer }) {
  growth.value;
  const seconds = useSeconds();
  const tokens = useSignal<number | undefined>(undefined);
  const isLong = seconds >= LONG_WAIT;
  useEffect(() => {
    if (!isLong) return;
    promptTokens(answer.request, key.value).then(
      (count) => {
        tokens.value = count;
      },
      () => undefined,
    );
  }, [isLong]);
  const phase =
    answer.queuePosition !== undefined
      ? words.queued(number(answer.queuePosition))
      : tokens.value !== undefined
        ? words.reading(number(tokens.value))
        : words.waiting;
  return (
    <p class="state">
      {phase} <span class="clock">{words.elapsed(number(seconds))}</span>
    </p>
  );
}

/** Returns the whole seconds since the component appeared. */
function useSeconds(): number {
  const seconds = useSignal(0);
  useEffect(() => {
    const began = performance.now();
    const timer = setInterval(() => {
      seconds.value = Math.floor((performance.now() - began) / 1000);
    }, 250);
    return () => clearInterval(timer);
  }, []);
  return seconds.value;
}

/** Buttons that display the other versions of an answer. */
function Versions({ answer }: { answer: Answer }) {
  const versions = versionsOf(answer);
  if (versions.length < 2) return null;
  const at = versions.findIndex(({ id }) => id === answer.id);
  const step = (label: string, sign: string, to: Answer | undefined) => (
    <button
      type="button"
      class="act"
      aria-label={label}
      title={label}
      disabled={!to || running.value !== undefined}
      onClick={() => to && chooseVersion(answer, to)}
    >
      {sign}
    </button>
  );
  return (
    <span class="versions">
      {step(words.earlierVersion, language === "fa" ? "›" : "‹", versions[at - 1])}
      <span>{words.version(number(at + 1), number(versions.length))}</span>
      {step(words.laterVersion, language === "fa" ? "‹" : "›", versions[at + 1])}
    </span>
  );
}

function Validity({ text }: { text: string }) {
  const isValid = prettyJson(text) !== undefined;
  return (
    <p class={isValid ? "note good" : "note wrong"}>{isValid ? `✓ ${words.validJson}` : `✗ ${words.invalidJson}`}</p>
  );
}

function Reasoning({ answer }: { answer: Answer }) {
  if (answer.status === "running") growth.value;
  const { times } = answer;
  const isReasoning = times.answer === undefined && answer.status === "running";
  const chosen = useSignal<boolean | undefined>(undefined);
  const isOpen = chosen.value ?? isReasoning;
  const running = useSeconds();
  const seconds = ((times.answer ?? times.end ?? times.sent) - (times.first ?? times.sent)) / 1000;
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
        {isReasoning ? (
          <>
            {words.reasoningNow} <span class="clock">{words.elapsed(number(running))}</span>
          </>
        ) : (
          words.reasonedFor(number(seconds, 1))
        )}
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
