import { copyFrom } from "../clipboard.ts";

const REMEMBERED = "vilix-example-language";

/** Makes tabs and copy buttons of the examples work. A language chosen once is chosen everywhere. */
export function examples(): void {
  document.addEventListener("click", (event) => {
    const target = event.target as Element;
    const tab = target.closest<HTMLElement>('.examples [role="tab"]');
    if (tab) choose(tab);
    const copy = target.closest<HTMLElement>("[data-copy]");
    if (copy) void copyFrom(copy, shownCode(copy));
  });
  document.addEventListener("keydown", (event) => {
    const tab = (event.target as Element).closest<HTMLElement>('[role="tab"]');
    if (tab) moveBetweenTabs(tab, event);
  });
  const remembered = stored();
  if (remembered) show(remembered);
}

/** Arrow keys, Home and End, as tabs have them. */
export function moveBetweenTabs(tab: HTMLElement, event: KeyboardEvent): void {
  const tabs = [...(tab.closest('[role="tablist"]')?.querySelectorAll<HTMLElement>('[role="tab"]') ?? [])];
  const forward = getComputedStyle(tab).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  const backward = forward === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
  const index = tabs.indexOf(tab);
  const next = { [forward]: index + 1, [backward]: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const chosen = tabs.at(next % tabs.length);
  chosen?.focus();
  chosen?.click();
}

function shownCode(button: HTMLElement): string {
  const block = button.closest(".code-block");
  const shown = block?.querySelector('[role="tabpanel"]:not([hidden]) code') ?? block?.querySelector("pre code");
  return `${shown?.textContent ?? ""}\n`;
}

function choose(tab: HTMLElement): void {
  const language = tab.dataset.language;
  if (!language) return;
  // What was clicked stays where it is, whatever grows or shrinks above it.
  const before = tab.getBoundingClientRect().top;
  show(language);
  window.scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
  try {
    localStorage.setItem(REMEMBERED, language);
  } catch {
    // Then it lasts as long as the page.
  }
}

function show(language: string): void {
  for (const group of document.querySelectorAll(".examples")) {
    if (!group.querySelector(`[role="tab"][data-language="${language}"]`)) continue;
    for (const tab of group.querySelectorAll<HTMLElement>('[role="tab"]')) {
      const isChosen = tab.dataset.language === language;
      tab.ariaSelected = String(isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    for (const panel of group.querySelectorAll<HTMLElement>('[role="tabpanel"]')) {
      panel.hidden = panel.dataset.language !== language;
    }
  }
}

function stored(): string | null {
  try {
    return localStorage.getItem(REMEMBERED);
  } catch {
    return null;
  }
}
