import { acceptOfferedKey, key, offeredKey, rejectOfferedKey } from "../store.ts";
import { words } from "../words.ts";

/** Asks whether the key of a link replaces the present one. */
export function KeyQuestion() {
  if (!offeredKey.value) return null;
  return (
    <div class="key-question" role="alertdialog" aria-labelledby="key-question-text">
      <p id="key-question-text">
        <span>
          {words.keyOffered} <Masked value={offeredKey.value} />
        </span>
        <span>
          {words.keyPresent} <Masked value={key.value} />
        </span>
      </p>
      <div class="row">
        <button type="button" class="button small primary" onClick={acceptOfferedKey}>
          {words.keyReplace}
        </button>
        <button type="button" class="button small" onClick={rejectOfferedKey}>
          {words.keyKeep}
        </button>
      </div>
    </div>
  );
}

function Masked({ value }: { value: string }) {
  return <code dir="ltr">{`${value.slice(0, 4)}••••${value.slice(-4)}`}</code>;
}
