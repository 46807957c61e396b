import { language, number } from "../../language.ts";
import { directionOf } from "../../markdown/direction.ts";
import { can, change, problems, settings } from "../store.ts";
import { SCHEMA_EXAMPLE, TOOLS_EXAMPLE, words } from "../words.ts";
import { Icon } from "./icons.tsx";
import { KeyBox } from "./key-box.tsx";

export function SettingsPanel({ onClose }: { onClose: () => void }) {
  const { system, temperature, maxTokens, isReasoningEnabled } = settings.value;
  return (
    <aside class="panel" aria-label={words.settings}>
      <button type="button" class="icon panel-close" aria-label={words.closeSettings} onClick={onClose}>
        <Icon name="close" />
      </button>
      <KeyBox id="key" />
      <label class="field">
        <span>{words.system}</span>
        <textarea
          rows={3}
          dir={directionOf(system, language === "fa" ? "rtl" : "ltr")}
          placeholder={words.systemHint}
          value={system}
          onInput={(event) => change({ system: event.currentTarget.value })}
        />
      </label>
      <div class="field">
        <label for="temperature">
          <span>{words.temperature}</span>
        </label>
        <output for="temperature">{temperature === undefined ? words.byModel : number(temperature, 1)}</output>
        <input
          id="temperature"
          type="range"
          min="0"
          max="2"
          step="0.1"
          value={temperature ?? 0.7}
          class={temperature === undefined ? "unset" : undefined}
          onInput={(event) => change({ temperature: event.currentTarget.valueAsNumber })}
        />
        {temperature !== undefined && (
          <button type="button" class="act" onClick={() => change({ temperature: undefined })}>
            {words.byModel}
          </button>
        )}
      </div>
      <label class="field">
        <span>{words.maxTokens}</span>
        <input
          type="number"
          inputmode="numeric"
          min="1"
          dir={maxTokens === undefined ? undefined : "ltr"}
          placeholder={words.byModel}
          value={maxTokens ?? ""}
          onInput={(event) => {
            const tokens = event.currentTarget.valueAsNumber;
            change({ maxTokens: Number.isInteger(tokens) && tokens > 0 ? tokens : undefined });
          }}
        />
      </label>
      {can.value.reasoning && (
        <label class="switch">
          <input
            type="checkbox"
            checked={isReasoningEnabled || !can.value.reasoning_optional}
            disabled={!can.value.reasoning_optional}
            onChange={(event) => change({ isReasoningEnabled: event.currentTarget.checked })}
          />
          <span>{words.enableReasoning}</span>
        </label>
      )}
      <JsonField name="schema" label={words.schema} example={SCHEMA_EXAMPLE} />
      <JsonField name="tools" label={words.tools} example={TOOLS_EXAMPLE} />
    </aside>
  );
}

function JsonField({ name, label, example }: { name: "schema" | "tools"; label: string; example: string }) {
  const problem = problems.value[name];
  const text = settings.value[name];
  return (
    <details class="json-field">
      <summary>
        {label}
        {text.trim() && <i class={problem ? "dot wrong" : "dot"} />}
      </summary>
      <textarea
        rows={8}
        dir="ltr"
        spellcheck={false}
        aria-label={label}
        aria-invalid={problem !== undefined}
        value={text}
        onInput={(event) => change({ [name]: event.currentTarget.value })}
      />
      <p class="row">
        <button type="button" class="act" onClick={() => change({ [name]: example })}>
          {words.insertExample}
        </button>
        {text && (
          <button type="button" class="act" onClick={() => change({ [name]: "" })}>
            {words.clear}
          </button>
        )}
      </p>
      {problem && (
        <p class="note wrong" role="alert">
          {words[problem]}
        </p>
      )}
    </details>
  );
}
