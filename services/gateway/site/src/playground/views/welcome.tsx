import { directionOf } from "../../markdown/direction.ts";
import { ask, isReady } from "../store.ts";
import { words } from "../words.ts";
import { KeyBox, useIsKeyAsked } from "./key-box.tsx";

/** The content of an empty conversation. */
export function Welcome() {
  const isKeyAsked = useIsKeyAsked();
  return (
    <div class="turns welcome">
      <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
        <rect x="7" y="7" width="18" height="18" />
        <rect x="7" y="7" width="18" height="18" transform="rotate(45 16 16)" />
        <circle cx="16" cy="16" r="3.5" />
      </svg>
      <h2>{words.emptyTitle}</h2>
      <p class="quiet">{words.emptyText}</p>
      {isKeyAsked ? (
        <div class="welcome-key">
          <p>{words.keyMissing}</p>
          <KeyBox id="welcome-key" />
        </div>
      ) : (
        <ul class="suggestions">
          {words.suggestions.map((text) => (
            <li key={text}>
              <button
                type="button"
                dir={directionOf(text, "rtl")}
                disabled={!isReady.value}
                onClick={() => ask(text, [])}
              >
                {text}
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
