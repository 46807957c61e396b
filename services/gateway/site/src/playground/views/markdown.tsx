import { useEffect, useRef } from "preact/hooks";
import { language } from "../../language.ts";
import { GrowingMarkdown } from "../../markdown/growing-markdown.ts";
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
  useEffect(() => {
    if (!container.current) return;
    const labels = { copy: words.copy, copied: words.copied };
    const view = new GrowingMarkdown(container.current, labels, language === "fa" ? "rtl" : "ltr", onStable);
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
      view.update(text(), ends);
      isOver = ends;
      // The longer an update takes, the less often it is done.
      notBefore = began + (performance.now() - began) * 4;
    };
    const unsubscribe = growth.subscribe(show);
    return () => {
      clearTimeout(waiting);
      unsubscribe();
    };
  }, []);
  return <div class="markdown" ref={container} />;
}
