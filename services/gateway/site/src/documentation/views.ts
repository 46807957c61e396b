/** Displays the documentation or the playground, depending on the fragment of the URL. */
export function views(): void {
  const playground = document.querySelector<HTMLElement>("#playground");
  const documentation = document.querySelector<HTMLElement>("#documentation");
  document.querySelector("[data-language-switch]")?.addEventListener("click", (event) => {
    // The other language's page has the same sections.
    const link = event.currentTarget as HTMLAnchorElement;
    link.hash = location.hash;
  });
  if (!playground || !documentation) return;
  let isOpened = false;

  const show = () => {
    const isPlayground = location.hash === "#playground";
    // Until now, the style sheet has hidden the documentation.
    delete document.documentElement.dataset.view;
    playground.hidden = !isPlayground;
    documentation.hidden = isPlayground;
    document.body.classList.toggle("in-playground", isPlayground);
    for (const link of document.querySelectorAll<HTMLElement>("[data-view]")) {
      const isCurrent = (link.dataset.view === "playground") === isPlayground;
      if (isCurrent) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (isPlayground) {
      window.scrollTo({ top: 0, behavior: "instant" });
      if (!isOpened) void import("../playground/open.tsx").then(({ open }) => open(playground));
      isOpened = true;
    } else if (location.hash) {
      document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView({ behavior: "instant" });
    }
  };
  addEventListener("hashchange", show);
  show();
}
