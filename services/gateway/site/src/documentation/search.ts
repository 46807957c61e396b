import { folded, type Passage, passagesMatching } from "./passages.ts";

const MOST_RESULTS = 12;

/** Activates the search within the page, which opens with `/` or Ctrl-K. */
export function search(): void {
  const dialog = document.querySelector<HTMLDialogElement>("dialog.search");
  const input = dialog?.querySelector("input");
  const list = dialog?.querySelector("ul");
  const empty = dialog?.querySelector<HTMLElement>('[role="status"]');
  if (!dialog || !input || !list || !empty) return;
  let passages: Passage[] = [];
  let results: Passage[] = [];
  let selected = 0;

  const open = () => {
    passages = collect();
    input.value = "";
    update();
    dialog.showModal();
    void otherPage().then((others) => {
      passages = [...collect(), ...others];
      update();
    });
  };
  const select = (index: number) => {
    selected = Math.max(0, Math.min(index, results.length - 1));
    [...list.children].forEach((item, position) => {
      item.ariaSelected = String(position === selected);
      if (position === selected) item.scrollIntoView({ block: "nearest" });
    });
    if (results.length) input.setAttribute("aria-activedescendant", `result-${selected}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const update = () => {
    results = passagesMatching(passages, input.value).slice(0, MOST_RESULTS);
    list.replaceChildren(...results.map((passage, index) => item(passage, index, input.value)));
    list.hidden = results.length === 0;
    empty.hidden = results.length > 0;
    select(0);
  };
  const go = (index: number) => {
    const passage = results[index];
    if (!passage) return;
    dialog.close();
    const { place, section } = passage;
    if (typeof place === "string") {
      location.href = `${place}#${section}`;
      return;
    }
    if (location.hash === `#${section}`) place.scrollIntoView();
    else location.hash = section;
    requestAnimationFrame(() => place.scrollIntoView({ block: "center" }));
  };

  document.querySelector("[data-search-open]")?.addEventListener("click", open);
  input.addEventListener("input", update);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      select(selected + step);
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(selected);
    } else if (event.key === "Escape") {
      // It would only empty the field at first.
      event.preventDefault();
      dialog.close();
    }
  });
  list.addEventListener("click", (event) => {
    const clicked = (event.target as Element).closest("li");
    if (clicked) go([...list.children].indexOf(clicked));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = (event.target as Element).matches("input, textarea, select, [contenteditable]");
    const isShortcut = event.key === "k" && (event.ctrlKey || event.metaKey);
    if (dialog.open || !(isShortcut || (event.key === "/" && !isTyping))) return;
    event.preventDefault();
    open();
  });
}

function collect(): Passage[] {
  const passages: Passage[] = [];
  for (const section of document.querySelectorAll("[data-search] section")) {
    const heading = section.querySelector("h2");
    if (!heading) continue;
    const title = heading.textContent ?? "";
    passages.push({
      section: heading.id,
      title,
      text: title,
      folded: folded(title),
      place: heading,
      isHeading: true,
    });
    for (const element of section.querySelectorAll("p, li:not(.model li), tr, pre")) {
      // What the reference repeats in place has sections of its own.
      if (element.closest(".fields, .try-it")) continue;
      const parts = element.matches("tr") ? [...element.children] : [element];
      const text = parts.map((part) => (part.textContent ?? "").replace(/\s+/g, " ").trim()).join(" — ");
      if (text)
        passages.push({ section: heading.id, title, text, folded: folded(text), place: element, isHeading: false });
    }
  }
  return passages;
}

let others: Promise<Passage[]> | undefined;

/** Returns the passages of this language's other page, reference or documentation. None if it cannot be loaded. */
function otherPage(): Promise<Passage[]> {
  const source = document.querySelector<HTMLLinkElement>("link[data-search-index]");
  const page = source?.dataset.page;
  if (!source || page === undefined) return Promise.resolve([]);
  others ??= fetch(source.href)
    .then(async (response) => (response.ok ? ((await response.json()) as IndexedPassage[]) : []))
    .catch(() => [])
    .then((list) =>
      list.map(({ section, title, text }) => ({
        section,
        title,
        text,
        folded: folded(text),
        isHeading: text === title,
        place: page,
      })),
    );
  return others;
}

interface IndexedPassage {
  section: string;
  title: string;
  text: string;
}

function item(passage: Passage, index: number, query: string): HTMLElement {
  const row = document.createElement("li");
  row.id = `result-${index}`;
  row.role = "option";
  const title = document.createElement("b");
  title.textContent = passage.title;
  row.append(title);
  if (!passage.isHeading) {
    const snippet = document.createElement("span");
    snippet.dir = "auto";
    snippet.append(...marked(excerpt(passage.text, query), query));
    row.append(snippet);
  }
  return row;
}

function excerpt(text: string, query: string): string {
  const at = Math.max(0, text.toLowerCase().indexOf(folded(query).trim()) - 40);
  const start = at === 0 ? 0 : text.indexOf(" ", at) + 1;
  return (start > 0 ? "… " : "") + text.slice(start, start + 120) + (text.length > start + 120 ? " …" : "");
}

function marked(text: string, query: string): (string | HTMLElement)[] {
  const needle = folded(query).trim();
  const at = needle ? text.toLowerCase().indexOf(needle) : -1;
  if (at < 0) return [text];
  const mark = document.createElement("mark");
  mark.textContent = text.slice(at, at + needle.length);
  return [text.slice(0, at), mark, text.slice(at + needle.length)];
}
