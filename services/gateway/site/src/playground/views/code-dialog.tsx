import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { apiUrl } from "../../api.ts";
import { type CodeLanguage, codeFor } from "../show-code.ts";
import { words } from "../words.ts";

const LANGUAGES: [CodeLanguage, string][] = [
  ["python", "Python"],
  ["javascript", "JavaScript"],
  ["bash", "cURL"],
];

interface Properties {
  path: string;
  body: Record<string, unknown>;
  onClose: () => void;
}

/** A request as a program in three languages. */
export function CodeDialog({ path, body, onClose }: Properties) {
  const dialog = useRef<HTMLDialogElement>(null);
  const codeElement = useRef<HTMLElement>(null);
  const language = useSignal<CodeLanguage>("python");
  const code = codeFor(language.value, path, body, apiUrl);
  useEffect(() => dialog.current?.showModal(), []);
  useEffect(() => {
    const element = codeElement.current;
    if (!element) return;
    const text = code.trimEnd();
    element.textContent = text;
    import("../../markdown/highlight.ts").then(
      ({ showCode }) => {
        if (element.textContent === text) showCode(element, text, language.value);
      },
      () => undefined,
    );
  }, [code]);
  return (
    <dialog class="code-dialog" ref={dialog} aria-label={words.codeTitle} onClose={onClose}>
      <header>
        <h2>{words.codeTitle}</h2>
        <button type="button" class="button small" onClick={onClose}>
          {words.close}
        </button>
      </header>
      <div class="code-block">
        <div class="code-bar">
          <div role="tablist" dir="ltr" aria-label={words.showCode}>
            {LANGUAGES.map(([id, name]) => (
              <button
                key={id}
                type="button"
                role="tab"
                id={`code-${id}`}
                aria-controls="code-panel"
                aria-selected={language.value === id}
                tabIndex={language.value === id ? 0 : -1}
                onClick={() => {
                  language.value = id;
                }}
              >
                {name}
              </button>
            ))}
          </div>
          <button type="button" class="copy" data-copy data-done={words.copied}>
            {words.copy}
          </button>
        </div>
        <div role="tabpanel" id="code-panel" aria-labelledby={`code-${language.value}`}>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard */}
          <pre dir="ltr" tabIndex={0}>
            <code ref={codeElement} />
          </pre>
        </div>
      </div>
    </dialog>
  );
}
