import { useEffect, useRef } from "preact/hooks";
import { language } from "../../language.ts";
import { GrowingMarkdown } from "../../markdown/growing-markdown.ts";
import { growth } from "../store.ts";
import { words } from "../words.ts";

interface Shown {
  /** Read anew whenever something grew. */
  text: () => string;
  isComplete: () => boolean;
  onStable: (text: string) => void;
}

/** Markdown that may still grow. Preact only makes its place: what is inside is no business of its diffing. */
export function Markdown({ text, isComplete, onStable }: Shown) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!place.current) return;
    const labels = { copy: words.copy, copied: words.copied };
    const view = new GrowingMarkdown(place.current, labels, language === "fa" ? "rtl" : "ltr", onStable);
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
      // Where showing takes long, it is done less often.
      notBefore = began + (performance.now() - began) * 4;
    };
    const unsubscribe = growth.subscribe(show);
    return () => {
      clearTimeout(waiting);
      unsubscribe();
    };
  }, []);
  return <div class="markdown" ref={place} />;
}
