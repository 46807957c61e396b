import { useSignal } from "@preact/signals";
import { openCalls, type ToolCall, type ToolResult } from "../conversation.ts";
import { giveResult, growth, turns } from "../store.ts";
import { words } from "../words.ts";

export function ToolResultView({ result }: { result: ToolResult }) {
  return (
    <article class="turn tool" aria-label={words.toolResult}>
      <p>
        {words.toolResult} <code dir="ltr">{result.name}</code>
      </p>
      <pre dir="ltr">
        <code>{result.text}</code>
      </pre>
    </article>
  );
}

/** A form for the results of tool calls, which the reader enters. */
export function ToolResultForm() {
  growth.value;
  const [call] = openCalls(turns.value);
  return call ? <ResultOf key={call.id} call={call} /> : null;
}

function ResultOf({ call }: { call: ToolCall }) {
  const text = useSignal("");
  return (
    <form
      class="turn tool"
      onSubmit={(event) => {
        event.preventDefault();
        giveResult(call.id, call.name, text.value);
      }}
    >
      <label>
        <span>
          {words.toolResult} <code dir="ltr">{call.name}</code>
        </span>
        <textarea
          rows={2}
          dir={text.value ? "ltr" : undefined}
          placeholder={words.toolResultHint}
          value={text.value}
          onInput={(event) => {
            text.value = event.currentTarget.value;
          }}
        />
      </label>
      <button type="submit" class="button small primary">
        {words.toolSend}
      </button>
    </form>
  );
}
