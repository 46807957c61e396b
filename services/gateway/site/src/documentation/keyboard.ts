/** Opens the list of keyboard shortcuts with `?`, or with the button at the end of the page. */
export function keyboardHelp(): void {
  const dialog = document.querySelector<HTMLDialogElement>("dialog.keyboard");
  const button = document.querySelector<HTMLElement>("[data-keyboard-open]");
  if (!dialog || !button) return;
  button.hidden = false;
  button.addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = (event.target as Element).closest("input, textarea, select, [contenteditable]");
    if (event.key !== "?" && event.key !== "؟") return;
    if (isTyping || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    dialog.showModal();
  });
}
