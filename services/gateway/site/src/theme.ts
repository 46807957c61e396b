/** Switches between the light and dark themes, and stores the choice. `theme.js` applies it before the first paint. */
export function themeToggle(): void {
  document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    try {
      localStorage.setItem("vilix-theme", root.dataset.theme);
    } catch {
      // Without storage, the choice lasts as long as the page.
    }
  });
}
