/** The renderer of Markdown, which is loaded before the first answer: a first view does not need it. */

export type Renderer = typeof import("./growing-markdown.ts");

let renderer: Promise<Renderer> | undefined;
let loaded: Renderer | undefined;

/** Returns the renderer if it is loaded, so that who needs it at once does not wait for a promise. */
export function loadedMarkdown(): Renderer | undefined {
  return loaded;
}

/** Loads the renderer once. A failure is forgotten, so that the next call tries again. */
export function loadMarkdown(): Promise<Renderer> {
  renderer ??= import("./growing-markdown.ts").then(
    (module) => {
      loaded = module;
      return module;
    },
    (error: unknown) => {
      renderer = undefined;
      throw error;
    },
  );
  return renderer;
}
