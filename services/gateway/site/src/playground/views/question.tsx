import { useSignal } from "@preact/signals";
import { language } from "../../language.ts";
import { directionOf } from "../../markdown/direction.ts";
import type { Question } from "../conversation.ts";
import { editQuestion, running } from "../store.ts";
import { words } from "../words.ts";
import { Icon } from "./icons.tsx";

const FALLBACK = language === "fa" ? "rtl" : "ltr";

export function QuestionView({ question }: { question: Question }) {
  const draft = useSignal<string | undefined>(undefined);
  if (draft.value !== undefined) {
    return (
      <form
        class="turn question editing"
        onSubmit={(event) => {
          event.preventDefault();
          if (draft.value?.trim()) editQuestion(question.id, draft.value);
        }}
      >
        <textarea
          aria-label={words.edit}
          dir={directionOf(draft.value, FALLBACK)}
          value={draft.value}
          ref={(area) => area?.focus()}
          onInput={(event) => {
            draft.value = event.currentTarget.value;
          }}
        />
        <div class="row">
          <button type="submit" class="button small primary">
            {words.saveAndSend}
          </button>
          <button
            type="button"
            class="button small"
            onClick={() => {
              draft.value = undefined;
            }}
          >
            {words.cancel}
          </button>
        </div>
      </form>
    );
  }
  return (
    <article class="turn question" aria-label={words.you}>
      <div class="bubble">
        {question.images.map((url) => (
          <img key={url} src={url} alt="" />
        ))}
        {question.text.split("\n").map((line, index) => (
          <p key={index} dir={directionOf(line, FALLBACK)}>
            {line || "\u00a0"}
          </p>
        ))}
      </div>
      <button
        type="button"
        class="act"
        aria-label={words.edit}
        title={words.edit}
        disabled={running.value !== undefined}
        onClick={() => {
          draft.value = question.text;
        }}
      >
        <Icon name="edit" />
      </button>
    </article>
  );
}
