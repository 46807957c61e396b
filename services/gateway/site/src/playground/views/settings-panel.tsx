import { useSignal } from "@preact/signals";
import { wholeNumber } from "../../digits.ts";
import { language, number } from "../../language.ts";
import { directionOf } from "../../markdown/direction.ts";
import { can, change, keyState, problems, settings } from "../store.ts";
import { SCHEMA_EXAMPLE, TOOLS_EXAMPLE, words } from "../words.ts";
import { Icon } from "./icons.tsx";
import { KeyBox } from "./key-box.tsx";
import { UsagePanel } from "./usage-panel.tsx";

export function SettingsPanel({ onClose }: { onClose: () => void }) {
  const { system, temperature, maxTokens, isReasoningEnabled } = settings.value;
  const typedTokens = useSignal(maxTokens === undefined ? "" : String(maxTokens));
  const isNotNumber = typedTokens.value.trim() !== "" && wholeNumber(typedTokens.value) === undefined;
  return (
    <aside class="panel" aria-label={words.settings}>
      <button type="button" class="icon panel-close" aria-label={words.closeSettings} onClick={onClose}>
        <Icon name="close" />
      </button>
      {/* Until a key is accepted, it is asked for beside the conversation. */}
      {keyState.value === "good" && <KeyBox id="key" />}
      <UsagePanel />
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
          id="max-tokens"
          type="text"
          inputmode="numeric"
          autocomplete="off"
          dir={typedTokens.value ? "ltr" : undefined}
          placeholder={words.byModel}
          value={typedTokens.value}
          aria-invalid={isNotNumber}
          aria-describedby="max-tokens-note"
          onInput={(event) => {
            typedTokens.value = event.currentTarget.value;
            change({ maxTokens: wholeNumber(typedTokens.value) });
          }}
        />
        <span id="max-tokens-note" class="note wrong" role="alert" hidden={!isNotNumber}>
          {words.notNumber}
        </span>
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
      <JsonField
        name="schema"
        label={words.schema}
        example={SCHEMA_EXAMPLE}
        isSupported={can.value.structured_output !== false}
      />
      <JsonField name="tools" label={words.tools} example={TOOLS_EXAMPLE} isSupported={can.value.tools !== false} />
    </aside>
  );
}

interface JsonFieldProperties {
  name: "schema" | "tools";
  label: string;
  example: string;
  /** The model can use it. Otherwise the field is disabled, and its text is kept and not sent. */
  isSupported: boolean;
}

function JsonField({ name, label, example, isSupported }: JsonFieldProperties) {
  const problem = problems.value[name];
  const text = settings.value[name];
  return (
    <details class="json-field">
      <summary>
        {label}
        {isSupported && text.trim() && <i class={problem ? "dot wrong" : "dot"} />}
      </summary>
      {!isSupported && <p class="note">{words.unsupported[name]}</p>}
      <textarea
        rows={8}
        dir="ltr"
        spellcheck={false}
        aria-label={label}
        aria-invalid={problem !== undefined}
        disabled={!isSupported}
        value={text}
        onInput={(event) => change({ [name]: event.currentTarget.value })}
      />
      <p class="row">
        <button type="button" class="act" disabled={!isSupported} onClick={() => change({ [name]: example })}>
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
