import { apiUrl } from "../api.ts";
import { copyFrom } from "../clipboard.ts";

const STORAGE_KEY = "vilix-example-language";

/** Activates the tabs and copy buttons of the examples. The choice of a language applies to all examples. */
export function examples(): void {
  document.addEventListener("click", (event) => {
    const target = event.target as Element;
    const tab = target.closest<HTMLElement>('.examples [role="tab"]');
    if (tab) choose(tab);
    const copy = target.closest<HTMLElement>("[data-copy]");
    if (copy) void copyFrom(copy, visibleCode(copy));
    const page = target.closest<HTMLElement>("[data-copy-page]");
    if (page) void copyPage(page);
  });
  document.addEventListener("keydown", (event) => {
    const tab = (event.target as Element).closest<HTMLElement>('[role="tab"]');
    if (tab) moveBetweenTabs(tab, event);
  });
  const language = storedLanguage();
  if (language) show(language);
}

/** Copies the page as Markdown, with this site's base URL. */
async function copyPage(button: HTMLElement): Promise<void> {
  const response = await fetch(button.dataset.copyPage ?? "");
  if (response.ok) await copyFrom(button, (await response.text()).replaceAll("https://HOST/api", apiUrl));
}

/** Moves between tabs with the arrow keys, Home and End. */
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

function visibleCode(button: HTMLElement): string {
  const block = button.closest(".code-block");
  const code = block?.querySelector('[role="tabpanel"]:not([hidden]) code') ?? block?.querySelector("pre code");
  return `${code?.textContent ?? ""}\n`;
}

function choose(tab: HTMLElement): void {
  const language = tab.dataset.language;
  if (!language) return;
  // The clicked tab keeps its position on the screen, even if blocks above it change their height.
  const before = tab.getBoundingClientRect().top;
  show(language);
  window.scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
  try {
    localStorage.setItem(STORAGE_KEY, language);
  } catch {
    // Without storage, the choice lasts as long as the page.
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

function storedLanguage(): string | null {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}
