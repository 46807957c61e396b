import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { clock, number } from "../../language.ts";
import { ApiProblem, type Problem } from "../problem.ts";
import { problemText } from "../problem-text.ts";
import { keyUsage } from "../requests.ts";
import { key, keyState, running } from "../store.ts";
import { isCost, type KeyUsage, LIMITS, type LimitName, limitRows, modelRows, tokensOf } from "../usage.ts";
import { words } from "../words.ts";

/** What the key has used today and this month, and what is left. It is read when opened, and after each answer. */
export function UsagePanel() {
  const isOpen = useSignal(false);
  const usage = useSignal<KeyUsage | undefined>(undefined);
  const problem = useSignal<Problem | undefined>(undefined);
  const isKnown = keyState.value === "good";
  const isRunning = running.value !== undefined;
  const read = () =>
    keyUsage(key.peek()).then(
      (found) => {
        usage.value = found;
        problem.value = undefined;
      },
      (error: unknown) => {
        problem.value = error instanceof ApiProblem ? error.problem : { kind: "network" };
      },
    );
  useEffect(() => {
    if (isOpen.value && isKnown && !isRunning) void read();
  }, [isOpen.value, isKnown, isRunning, key.value]);
  if (!isKnown) return null;
  return (
    <section class="usage">
      <details
        onToggle={(event) => {
          isOpen.value = event.currentTarget.open;
        }}
      >
        <summary>{words.usage}</summary>
        {problem.value && (
          <p class="note wrong" role="alert">
            {words.usageFailed} {problemText(problem.value)}
          </p>
        )}
        {usage.value && <Amounts usage={usage.value} />}
        {usage.value && <LimitList usage={usage.value} />}
        <p class="row">
          <button type="button" class="act" onClick={() => void read()}>
            {words.usageRefresh}
          </button>
        </p>
      </details>
    </section>
  );
}

function money(units: number, { currency = "", decimals = 0 }: KeyUsage): string {
  return `${number(units / 10 ** decimals, decimals)} ${currency}`;
}

function amount(name: LimitName, value: number, usage: KeyUsage): string {
  return isCost(name) ? money(value, usage) : number(value);
}

function Amounts({ usage }: { usage: KeyUsage }) {
  const { today, month } = usage;
  return (
    <table>
      <thead>
        <tr>
          <td />
          <th scope="col">{words.usageToday}</th>
          <th scope="col">{words.usageMonth}</th>
        </tr>
      </thead>
      <tbody>
        <Row label={words.usageRequests} today={today.requests} month={month.requests} />
        <Row label={words.usageTokens} today={tokensOf(today)} month={tokensOf(month)} />
        {modelRows(usage).map((row) => (
          <Row key={row.model} label={<bdi dir="ltr">{row.model}</bdi>} today={row.today} month={row.month} isPart />
        ))}
        {usage.currency && (
          <tr>
            <th scope="row">{words.receiptCost}</th>
            <td>{money(today.cost ?? 0, usage)}</td>
            <td>{money(month.cost ?? 0, usage)}</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

interface RowProperties {
  label: ComponentChildren;
  today: number;
  month: number;
  /** The row is one of those of which the row above is the sum. */
  isPart?: boolean;
}

function Row({ label, today, month, isPart = false }: RowProperties) {
  return (
    <tr class={isPart ? "part" : undefined}>
      <th scope="row">{label}</th>
      <td>{number(today)}</td>
      <td>{number(month)}</td>
    </tr>
  );
}

function LimitList({ usage }: { usage: KeyUsage }) {
  const rows = limitRows(usage);
  const ofModels = Object.entries(usage.model_limits).flatMap(([model, limits]) =>
    LIMITS.flatMap((name) => (limits[name] == null ? [] : [{ model, name, limit: limits[name] }])),
  );
  if (rows.length === 0 && ofModels.length === 0) return <p class="note">{words.usageNoLimits}</p>;
  return (
    <>
      <ul>
        {rows.map(({ name, limit, left }) => (
          <li key={name}>
            <span>{words.usageLimits[name]}</span>
            <span>{words.usageLeft(amount(name, left, usage), amount(name, limit, usage))}</span>
            <meter aria-label={words.usageLimits[name]} min={0} max={limit} value={left} />
          </li>
        ))}
        {ofModels.map(({ model, name, limit }) => (
          <li key={`${model} ${name}`}>
            <span>
              {words.usageLimits[name]} (<bdi dir="ltr">{model}</bdi>)
            </span>
            <span>{amount(name, limit, usage)}</span>
          </li>
        ))}
      </ul>
      {usage.limits.daily_tokens != null && (
        <p class="note">{words.usageRenewed(clock(Date.parse(usage.today.ends)))}</p>
      )}
    </>
  );
}
