import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { number } from "../../language.ts";
import { ApiProblem, type Problem } from "../problem.ts";
import { problemText } from "../problem-text.ts";
import { type Receipt, receiptOf } from "../requests.ts";
import { key } from "../store.ts";
import { words } from "../words.ts";

const STAGES = [
  "authenticated",
  "queued",
  "admitted",
  "worker_called",
  "first_token",
  "last_token",
  "settled",
] as const;

/** The receipt of a request, which is read when it is opened. */
export function ReceiptView({ requestId }: { requestId: string }) {
  const receipt = useSignal<Receipt | undefined>(undefined);
  const problem = useSignal<Problem | undefined>(undefined);
  const read = () =>
    receiptOf(requestId, key.peek()).then(
      (found) => {
        receipt.value = found;
        problem.value = undefined;
      },
      (error: unknown) => {
        problem.value = error instanceof ApiProblem ? error.problem : { kind: "network" };
      },
    );
  return (
    <details
      class="receipt"
      onToggle={(event) => {
        if (event.currentTarget.open && !receipt.value) void read();
      }}
    >
      <summary>{words.receipt}</summary>
      {problem.value && (
        <p class="note wrong" role="alert">
          {words.receiptFailed} {problemText(problem.value)}
        </p>
      )}
      {receipt.value && <Rows receipt={receipt.value} />}
    </details>
  );
}

function Rows({ receipt }: { receipt: Receipt }) {
  const { usage, cost, currency, decimals = 0, timings_ms: times = {} } = receipt;
  const served = [receipt.engine, receipt.engine_version].filter(Boolean).join(" ");
  return (
    <table>
      <tbody>
        <Row label={words.requestId} value={<code dir="ltr">{receipt.id}</code>} />
        <Row label={words.receiptOutcome} value={<code dir="ltr">{receipt.outcome}</code>} />
        <Row label={words.receiptPrompt} value={number(usage.prompt_tokens)} />
        <Row label={words.receiptCached} value={number(usage.cached_tokens)} />
        <Row label={words.receiptAnswer} value={number(usage.completion_tokens)} />
        {cost !== undefined && (
          <Row label={words.receiptCost} value={`${number(cost / 10 ** decimals, decimals)} ${currency}`} />
        )}
        {served && <Row label={words.receiptEngine} value={<code dir="ltr">{served}</code>} />}
        {STAGES.flatMap((stage) => {
          const time = times[stage];
          return time === undefined
            ? []
            : [<Row key={stage} label={words.receiptStages[stage]} value={words.milliseconds(number(time, 1))} />];
        })}
      </tbody>
    </table>
  );
}

function Row({ label, value }: { label: string; value: ComponentChildren }) {
  return (
    <tr>
      <th scope="row">{label}</th>
      <td>{value}</td>
    </tr>
  );
}
