import { readFileSync } from "node:fs";
import { basename } from "node:path";
import type { Plugin } from "vite";
import { example, type Heading, renderDocumentation } from "./markdown.ts";
import { changesAsMarkdown, documentationAsMarkdown, llmsTxt, referenceAsMarkdown } from "./plain-markdown.ts";
import { openApi, renderReference } from "./reference.ts";
import { passagesOf } from "./search-index.ts";
import { en, fa, type Words } from "./words.ts";

interface PageSource {
  words: Words;
  /** The relative path from the page to the site's root. */
  root: string;
  /** The relative path from the page to itself, and to the same page in the other language. */
  self: string;
  other: string;
  kind: "page" | "reference" | "changes" | "missing";
  /** The file with the page as Markdown; empty for the page of an address that does not exist. */
  markdown: string;
}

/** The pages by their input files, whose contents are generated here. */
export const pages: Record<string, PageSource> = {
  "index.html": { words: fa, root: "./", self: "./", other: "./en", kind: "page", markdown: "fa.md" },
  "en.html": { words: en, root: "./", self: "./en", other: "./", kind: "page", markdown: "en.md" },
  "api/docs.html": {
    words: fa,
    root: "../",
    self: "docs",
    other: "docs.en",
    kind: "reference",
    markdown: "api/docs.md",
  },
  "api/docs.en.html": {
    words: en,
    root: "../",
    self: "docs.en",
    other: "docs",
    kind: "reference",
    markdown: "api/docs.en.md",
  },
  "api/changes.html": {
    words: fa,
    root: "../",
    self: "changes",
    other: "changes.en",
    kind: "changes",
    markdown: "api/changes.md",
  },
  "api/changes.en.html": {
    words: en,
    root: "../",
    self: "changes.en",
    other: "changes",
    kind: "changes",
    markdown: "api/changes.en.md",
  },
  // The gateway replaces `./` by the way from the missing address to the root.
  "missing.html": { words: fa, root: "./", self: "", other: "./en", kind: "missing", markdown: "" },
  "missing.en.html": { words: en, root: "./", self: "", other: "./", kind: "missing", markdown: "" },
};

/** Generates the HTML of every page, and the OpenAPI document. */
export function documents(): Plugin {
  return {
    name: "documents",
    transformIndexHtml: {
      order: "pre",
      handler(_, { path }) {
        const page = pages[path.replace(/^\//, "")];
        if (page === undefined) throw new Error(`unknown page ${path}`);
        return RENDERERS[page.kind](page);
      },
    },
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "api/openapi.json", source: JSON.stringify(openApi()) });
      for (const page of Object.values(pages).filter(({ kind }) => kind !== "missing")) {
        const { html, headings } = rendered(page);
        const source = JSON.stringify(passagesOf(html, headings));
        if (page.kind !== "changes") this.emitFile({ type: "asset", fileName: indexOf(page), source });
        this.emitFile({ type: "asset", fileName: page.markdown, source: asMarkdown(page) });
      }
      this.emitFile({ type: "asset", fileName: "llms.txt", source: llmsTxt(en) });
    },
  };
}

/** Returns the name of the file with the passages of a page, for the search from the other page. */
function indexOf({ kind, words }: Pick<PageSource, "kind" | "words">): string {
  return `site/search/${kind}.${words.language}.json`;
}

function asMarkdown({ kind, words }: PageSource): string {
  if (kind === "changes") return changesAsMarkdown(words);
  return kind === "page" ? documentationAsMarkdown(words) : referenceAsMarkdown(words);
}

/** Renders the sections of a page. */
function rendered({ kind, words }: PageSource): { html: string; headings: Heading[] } {
  if (kind === "reference") return renderReference(words);
  const file = kind === "changes" ? `changes.${words.language}.md` : `${words.language}.md`;
  return renderDocumentation(readFileSync(`content/${file}`, "utf8"), words);
}

function documentationPage(page: PageSource): string {
  const { words } = page;
  const { html, headings } = rendered(page);
  return shell(page, {
    title: words.title,
    script: "/src/page.ts",
    body: `
<main id="documentation" tabindex="-1">
  ${hero(words)}
  <div class="layout">
    ${contents(headings, page)}
    <article class="prose" data-search>${html}</article>
  </div>
</main>
<main id="playground" aria-label="${words.playground}" hidden>
  <p class="quiet loading">${words.playgroundLoading}</p>
</main>`,
  });
}

function referencePage(page: PageSource): string {
  const { words } = page;
  const changes = `changes${words.language === "fa" ? "" : ".en"}`;
  const links = `<a href="openapi.json" dir="ltr">openapi.json</a> · <a href="${changes}">${words.changes}</a>`;
  return textPage(page, words.reference, `${words.referenceLead} ${links}`);
}

function changesPage(page: PageSource): string {
  return textPage(page, page.words.changes, page.words.changesLead);
}

/** The page of an address that does not exist. It works without scripts, and under any address. */
function missingPage(page: PageSource): string {
  const { words, root } = page;
  const home = words.language === "fa" ? root : `${root}en`;
  const suffix = words.language === "fa" ? "" : ".en";
  const links = [
    [home, words.documentation],
    [`${home}#playground`, words.playground],
    [`${root}api/docs${suffix}`, words.reference],
    [`${root}api/changes${suffix}`, words.changes],
  ];
  const list = links.map(([href, text]) => `<li><a href="${href}">${text}</a></li>`).join("");
  return shell(page, {
    title: `${words.missingTitle} · ${words.brand}`,
    script: "/src/page.ts",
    body: `
<main id="documentation" tabindex="-1" class="reference missing">
  <header class="intro">
    <h1>${words.missingTitle}</h1>
    <p>${words.missingText}</p>
    <ul>${list}<li>${words.missingLink}: <code dir="ltr" data-fill="base_url">https://HOST/api</code></li></ul>
  </header>
</main>`,
  });
}

function textPage(page: PageSource, title: string, lead: string): string {
  const { words } = page;
  const { html, headings } = rendered(page);
  return shell(page, {
    title: `${title} · ${words.brand}`,
    script: "/src/page.ts",
    body: `
<main id="documentation" tabindex="-1" class="reference">
  <header class="intro">
    <h1>${title}</h1>
    <p>${lead}</p>
  </header>
  <div class="layout">
    ${contents(headings, page)}
    <article class="prose" data-search>${html}</article>
  </div>
</main>`,
  });
}

const RENDERERS: Record<PageSource["kind"], (page: PageSource) => string> = {
  page: documentationPage,
  reference: referencePage,
  changes: changesPage,
  missing: missingPage,
};

function hero(words: Words): string {
  const facts = words.facts.map(({ term, meaning }) => `<div><dt>${term}</dt><dd>${meaning}</dd></div>`).join("");
  return `<div class="hero">
    <div class="hero-text">
      <p class="tagline">${words.tagline}</p>
      <h1>${words.headline}</h1>
      <p class="lead">${words.lead}</p>
      <p class="actions">
        <a class="button primary" href="#playground">${words.tryIt}</a>
        <a class="button" href="#start">${words.readOn}</a>
      </p>
    </div>
    <div class="hero-code">${example("chat", words).replaceAll("-chat-", "-hero-")}</div>
    <dl class="facts">${facts}</dl>
  </div>`;
}

function contents(headings: Heading[], { words, root, markdown }: PageSource): string {
  const items = headings.map(({ id, text }) => `<li><a href="#${id}">${text}</a></li>`).join("");
  return `<nav class="contents" aria-label="${words.contents}"><p>${words.contents}</p><ol>${items}</ol>
    <button type="button" data-copy-page="${root}${markdown}" data-done="${words.copied}">
      ${words.copyPage}
    </button>
  </nav>`;
}

function alternates({ words, root, self, other, markdown }: PageSource): string {
  return `<link vite-ignore rel="canonical" href="${self}">
<link vite-ignore rel="alternate" type="text/markdown" href="${root}${markdown}">
<link vite-ignore rel="alternate" hreflang="${words.language}" href="${self}">
<link vite-ignore rel="alternate" hreflang="${words.language === "fa" ? "en" : "fa"}" href="${other}">`;
}

function shell(page: PageSource, { title, script, body }: { title: string; script: string; body: string }): string {
  const { words, root, other, kind } = page;
  const home = kind === "page" ? "" : words.language === "fa" ? root : `${root}en`;
  const current = (view: string) => (view === kind ? ' aria-current="page"' : "");
  const languages = words.language === "fa" ? 'lang="en" dir="ltr"' : 'lang="fa" dir="rtl"';
  const reference = `${root}api/${basename(words.language === "fa" ? "docs" : "docs.en")}`;
  return `<!doctype html>
<html lang="${words.language}" dir="${words.direction}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="${words.description}">
<meta name="vilix-api" content="${root}api">
<meta name="vilix-root" content="${root}">
<title>${title}</title>
<meta property="og:type" content="website">
<meta property="og:site_name" content="${words.brand}">
<meta property="og:title" content="${title}">
<meta property="og:description" content="${words.description}">
<meta property="og:locale" content="${words.language === "fa" ? "fa_IR" : "en_US"}">
${kind === "missing" ? '<meta name="robots" content="noindex">' : alternates(page)}
<link vite-ignore rel="alternate" type="application/json" data-search-index
  data-page="${kind === "page" ? reference : home || root}"
  href="${root}${indexOf({ kind: kind === "page" ? "reference" : "page", words })}">
<link rel="icon" type="image/svg+xml" href="/site/mark.svg">
${words.language === "fa" ? preloaded("arabic") : ""}
${preloaded("latin")}
<script vite-ignore src="${root}site/theme.js"></script>
<link rel="stylesheet" href="/src/style/page.css">
<script type="module" src="${script}"></script>
</head>
<body>
<a class="skip" href="#documentation">${words.skip}</a>
<header class="top">
  <a class="brand" href="${home || "#"}">${MARK}<span>${words.brand}</span></a>
  <nav aria-label="${words.brand}">
    <a href="${home}#start" data-view="documentation"${current("page")}>${words.documentation}</a>
    <a href="${home}#playground" data-view="playground">${words.playground}</a>
    <a href="${reference}"${current("reference")}>${words.reference}</a>
  </nav>
  <div class="tools">
    <button type="button" class="search-button" data-search-open aria-keyshortcuts="/" aria-label="${words.searchHint}">
      ${ICONS.search}<span>${words.search}</span><kbd>/</kbd>
    </button>
    <button type="button" class="icon" data-theme-toggle aria-label="${words.theme}" title="${words.theme}">
      ${ICONS.theme}
    </button>
    <a class="language" href="${other}" hreflang="${words.language === "fa" ? "en" : "fa"}" ${languages}
      data-language-switch>${words.otherLanguage}</a>
  </div>
</header>
${body}
<footer class="bottom">
  <span>${words.brand} · ${words.footer}</span>
  <span>
    <button type="button" class="link" data-keyboard-open aria-keyshortcuts="?" hidden>${words.keyboard}</button> ·
    <a href="${root}api/changes${words.language === "fa" ? "" : ".en"}">${words.changes}</a> ·
    <a href="${root}site/licences.txt">${words.licences}</a>
  </span>
</footer>
<dialog class="search" aria-label="${words.searchHint}">
  <form method="dialog">
    ${ICONS.search}<input type="search" role="combobox" aria-expanded="true" aria-controls="search-results"
      aria-autocomplete="list" aria-label="${words.searchHint}" placeholder="${words.searchPlaceholder}"
      autocomplete="off" spellcheck="false">
    <button type="submit">${words.close}</button>
  </form>
  <ul id="search-results" role="listbox" aria-label="${words.searchHint}"></ul>
  <p class="quiet" role="status" hidden>${words.searchEmpty}</p>
</dialog>
${keyboardHelp(words)}
</body>
</html>`;
}

/** Loads a part of the text's font before the style sheet that names it. */
function preloaded(subset: string): string {
  const file = `/node_modules/@fontsource-variable/vazirmatn/files/vazirmatn-${subset}-wght-normal.woff2`;
  return `<link rel="preload" as="font" type="font/woff2" crossorigin href="${file}">`;
}

function keyboardHelp(words: Words): string {
  const rows = words.keys.map(
    ([keys, meaning]) =>
      `<div><dt dir="ltr">${keys
        .split(" ")
        .map((key) => `<kbd>${key}</kbd>`)
        .join(" ")}</dt><dd>${meaning}</dd></div>`,
  );
  return `<dialog class="keyboard" aria-label="${words.keyboard}">
  <form method="dialog"><h2>${words.keyboard}</h2><button type="submit">${words.close}</button></form>
  <dl>${rows.join("")}</dl>
</dialog>`;
}

const ICONS = {
  search:
    '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="8.500" cy="8.500" r="5.500"/>' +
    '<path d="M12.600 12.600 17.500 17.500"/></svg>',
  theme:
    '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="7"/>' +
    '<path class="filled" d="M10 3a7 7 0 0 1 0 14z"/></svg>',
};

/** An eight-pointed star, as on Persian tiles. */
const MARK =
  '<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect x="7" y="7" width="18" height="18"/>' +
  '<rect x="7" y="7" width="18" height="18" transform="rotate(45 16 16)"/>' +
  '<circle cx="16" cy="16" r="3.500"/></svg>';
