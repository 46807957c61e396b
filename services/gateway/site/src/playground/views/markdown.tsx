import { useLayoutEffect, useRef } from "preact/hooks";
import { language } from "../../language.ts";
import { loadedMarkdown, loadMarkdown, type Renderer } from "../../markdown/load-markdown.ts";
import { growth } from "../store.ts";
import { words } from "../words.ts";

interface Properties {
  /** Read again whenever an answer has grown. */
  text: () => string;
  isComplete: () => boolean;
  onStable: (text: string) => void;
}

/** Markdown that may still grow. Preact renders only its container, whose content GrowingMarkdown controls. */
export function Markdown({ text, isComplete, onStable }: Properties) {
  const container = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = container.current;
    if (!element) return;
    let isGone = false;
    let end: () => void = () => undefined;
    const labels = { copy: words.copy, copied: words.copied };
    const begin = (update: Update) => {
      if (!isGone) end = followGrowth({ text, isComplete, update });
    };
    const render = ({ GrowingMarkdown }: Renderer) => {
      const view = new GrowingMarkdown(element, labels, language === "fa" ? "rtl" : "ltr", onStable);
      begin((...state) => view.update(...state));
    };
    const renderer = loadedMarkdown();
    if (renderer) render(renderer);
    else
      loadMarkdown().then(render, () =>
        // Without the renderer, the text is better than nothing.
        begin((plain) => {
          element.textContent = plain;
        }),
      );
    return () => {
      isGone = true;
      end();
    };
  }, []);
  return <div class="markdown" ref={container} />;
}

type Update = (text: string, isComplete: boolean) => void;

/** Calls `update` whenever the answer has grown, until it is complete. Returns a function that ends this. */
function followGrowth({ text, isComplete, update }: Omit<Properties, "onStable"> & { update: Update }): () => void {
  let isOver = false;
  let notBefore = 0;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const show = () => {
    if (isOver) return;
    clearTimeout(waiting);
    const began = performance.now();
    const ends = isComplete();
    if (began < notBefore && !ends) {
      waiting = setTimeout(show, notBefore - began);
      return;
    }
    update(text(), ends);
    isOver = ends;
    // The longer an update takes, the less often it is done.
    notBefore = began + (performance.now() - began) * 4;
  };
  const unsubscribe = growth.subscribe(show);
  return () => {
    clearTimeout(waiting);
    unsubscribe();
  };
}
