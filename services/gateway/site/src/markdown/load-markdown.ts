/** The renderer of Markdown, which is loaded before the first answer: a first view does not need it. */

type Renderer = typeof import("./growing-markdown.ts");

let renderer: Promise<Renderer> | undefined;

/** Loads the renderer once. A failure is forgotten, so that the next call tries again. */
export function loadMarkdown(): Promise<Renderer> {
  renderer ??= import("./growing-markdown.ts").catch((error: unknown) => {
    renderer = undefined;
    throw error;
  });
  return renderer;
}
