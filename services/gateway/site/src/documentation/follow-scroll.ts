/** Marks the visible section in the table of contents. */
export function followScroll(): void {
  const nav = document.querySelector<HTMLElement>(".contents");
  const headings = [...document.querySelectorAll<HTMLElement>(".prose h2")];
  if (!nav || headings.length === 0) return;
  let current: Element | null = null;
  let isWaiting = false;

  const follow = () => {
    isWaiting = false;
    const line = window.innerHeight * 0.3;
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < line);
    const atEnd = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
    const heading = atEnd && window.scrollY > 0 ? headings.at(-1) : (passed.at(-1) ?? headings[0]);
    const link = nav.querySelector(`a[href="#${heading?.id}"]`);
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link?.setAttribute("aria-current", "true");
    current = link;
    keepVisible(nav, link);
  };
  const onScroll = () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(follow);
  };
  addEventListener("scroll", onScroll, { passive: true });
  addEventListener("resize", onScroll, { passive: true });
  follow();
}

function keepVisible(nav: HTMLElement, link: Element | null): void {
  if (!link || nav.scrollHeight <= nav.clientHeight) return;
  const item = link.getBoundingClientRect();
  const frame = nav.getBoundingClientRect();
  if (item.top < frame.top || item.bottom > frame.bottom) {
    nav.scrollTop += item.top - frame.top - frame.height / 2;
  }
}
