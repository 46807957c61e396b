// Before the first paint, so that nobody sees the other theme flash.
(() => {
  try {
    const theme = localStorage.getItem("vilix-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // A browser that keeps nothing follows the system.
  }
})();
