// Runs before the first paint, so that neither the other theme nor the other view flashes.
(() => {
  if (location.hash === "#playground") document.documentElement.dataset.view = "playground";
  try {
    const theme = localStorage.getItem("vilix-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage, the page follows the system's theme.
  }
})();
