import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { problemText } from "../problem-text.ts";
import { key, keyState, useKey } from "../store.ts";
import { words } from "../words.ts";

/** Whether a key is to be asked for: until one is accepted, also while it is being checked. */
export function useIsKeyAsked(): boolean {
  const isAsked = useRef(key.peek() === "");
  if (keyState.value !== "checking") isAsked.current = keyState.value !== "good";
  return isAsked.current;
}

/** A form for the key, with the result of its check. */
export function KeyBox({ id }: { id: string }) {
  const typed = useSignal("");
  const state = keyState.value;
  const note =
    state === "none"
      ? words.keyNote
      : state === "checking"
        ? words.keyChecking
        : state === "good"
          ? words.keyGood
          : state === "bad"
            ? words.keyBad
            : `${words.keyUnchecked} ${problemText(state)}`;
  const isWrong = state === "bad" || typeof state === "object";
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!typed.value.trim()) return;
    void useKey(typed.value);
  };
  return (
    <form class="key-box" onSubmit={submit}>
      <label for={id}>{words.key}</label>
      {state === "good" ? (
        <div class="row">
          <output dir="ltr" class="masked">
            {`${key.value.slice(0, 4)}••••••••${key.value.slice(-2)}`}
          </output>
          <button
            type="button"
            class="button small"
            onClick={() => {
              typed.value = "";
              void useKey("");
            }}
          >
            {words.keyForget}
          </button>
        </div>
      ) : (
        <div class="row">
          <input
            id={id}
            type="password"
            dir={typed.value ? "ltr" : undefined}
            autocomplete="off"
            spellcheck={false}
            placeholder={words.keyHint}
            value={typed.value}
            aria-describedby={`${id}-note`}
            aria-invalid={isWrong}
            onInput={(event) => {
              typed.value = event.currentTarget.value;
            }}
          />
          <button type="submit" class="button small primary">
            {words.keySave}
          </button>
        </div>
      )}
      <p id={`${id}-note`} class={isWrong ? "note wrong" : state === "good" ? "note good" : "note"} role="status">
        {note}
      </p>
    </form>
  );
}
