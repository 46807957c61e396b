/** The form with which a visitor sends an operation's request. A script makes it work, and shows it. */
import { escapeHtml } from "./markdown.ts";
import type { Call } from "./request-code.ts";
import type { Words } from "./words.ts";

/** Renders the form of an operation. */
export function tryItForm({ method, path, body, parameters }: Call, words: Words): string {
  const id = `try-${method}${path.replace(/\W+/g, "-")}`;
  const inputs = Object.entries(parameters).map(
    ([name, value]) =>
      `<label><code dir="ltr">${name}</code>
        <input name="${name}" data-parameter placeholder="${value}" dir="ltr" required autocomplete="off"></label>`,
  );
  const json = body ? escapeHtml(JSON.stringify(body, null, 2)) : "";
  const area = `<label>${words.requestBody}
    <textarea name="body" dir="ltr" rows="${json.split("\n").length + 1}" spellcheck="false">${json}</textarea>
  </label>`;
  return `<details class="try-it" id="${id}" data-method="${method.toUpperCase()}" data-path="${path}" hidden>
    <summary>${words.sendIt}</summary>
    <form>
      <label>${words.key}
        <input type="password" name="key" dir="ltr" placeholder="vlx_…" autocomplete="off" required></label>
      ${inputs.join("")}
      ${body ? area : ""}
      <p class="actions">
        <button type="submit" class="button primary">${words.send}</button>
        <button type="button" class="button" data-stop hidden>${words.stop}</button>
        <span role="status" data-bad-json="${words.badJson}" data-unreachable="${words.unreachable}"
          data-stopped="${words.stopped}" data-seconds="${words.seconds}"></span>
      </p>
      <pre dir="ltr" tabindex="0" aria-label="${words.response}" hidden><code></code></pre>
    </form>
  </details>`;
}
