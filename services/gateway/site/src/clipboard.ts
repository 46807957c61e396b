/** Copies text. Without TLS, `navigator.clipboard` is missing, and a text area is used instead. */
export async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Copies the text of a button's code block, and confirms it on the button for a moment. */
export async function copyFrom(button: HTMLElement, text: string): Promise<void> {
  await copyText(text);
  const label = button.textContent;
  if (button.classList.contains("done")) return;
  button.textContent = button.dataset.done ?? label;
  button.classList.add("done");
  setTimeout(() => {
    button.textContent = label;
    button.classList.remove("done");
  }, 1600);
}
