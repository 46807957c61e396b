import { number } from "../../language.ts";
import { type Answer, speedOf } from "../conversation.ts";
import { words } from "../words.ts";

/** The tokens of an answer, and the duration of its phases. */
export function Timeline({ answer }: { answer: Answer }) {
  const speed = speedOf(answer);
  if (!speed) return null;
  const { times, usage } = answer;
  const { sent, first = sent, end = first } = times;
  const answerBegan = times.answer ?? end;
  const phases = [
    { name: "wait", label: words.phaseWait, time: first - sent },
    { name: "reasoning", label: words.phaseReasoning, time: answer.reasoning ? answerBegan - first : 0 },
    { name: "answer", label: words.phaseAnswer, time: end - (answer.reasoning ? answerBegan : first) },
  ].filter(({ time }) => time > 0);
  const reasoningTokens = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
  const facts = [
    usage &&
      words.tokens(number(usage.completion_tokens)) +
        (reasoningTokens ? ` (${words.reasoningTokens(number(reasoningTokens))})` : ""),
    words.firstToken(inSeconds(speed.first)),
    speed.tokensPerSecond && words.speed(number(speed.tokensPerSecond)),
  ].filter(Boolean);
  return (
    <div class="timeline">
      <div class="bar" role="img" aria-label={words.timeline(inSeconds(speed.first), inSeconds(speed.total))}>
        {phases.map(({ name, label, time }) => (
          <span
            key={name}
            class={name}
            style={{ flexGrow: time }}
            title={`${label}: ${inSeconds(time)} ${words.seconds}`}
          >
            <i>{label}</i>
          </span>
        ))}
      </div>
      <p>{facts.join(" · ")}</p>
    </div>
  );
}

function inSeconds(milliseconds: number): string {
  return number(milliseconds / 1000, 2);
}
