import { readFileSync } from "node:fs";
import { basename } from "node:path";
import type { Plugin } from "vite";
import { example, type Heading, renderDocumentation } from "./markdown.ts";
import { openApi, renderReference } from "./reference.ts";
import { en, fa, type Words } from "./words.ts";

interface PageSource {
  words: Words;
  /** The relative path from the page to the site's root. */
  root: string;
  /** The relative path of the same page in the other language. */
  other: string;
  kind: "page" | "reference";
}

/** The pages by their input files, whose contents are generated here. */
export const pages: Record<string, PageSource> = {
  "index.html": { words: fa, root: "./", other: "./en", kind: "page" },
  "en.html": { words: en, root: "./", other: "./", kind: "page" },
  "api/docs.html": { words: fa, root: "../", other: "docs.en", kind: "reference" },
  "api/docs.en.html": { words: en, root: "../", other: "docs", kind: "reference" },
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
        return page.kind === "page" ? documentationPage(page) : referencePage(page);
      },
    },
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "api/openapi.json", source: JSON.stringify(openApi()) });
    },
  };
}

function documentationPage(page: PageSource): string {
  const { words } = page;
  const source = readFileSync(`content/${words.language}.md`, "utf8");
  const { html, headings } = renderDocumentation(source, words);
  return shell(page, {
    title: words.title,
    script: "/src/page.ts",
    body: `
<main id="documentation" tabindex="-1">
  ${hero(words)}
  <div class="layout">
    ${contents(headings, words)}
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
  const { html, headings } = renderReference(words);
  return shell(page, {
    title: `${words.reference} · ${words.brand}`,
    script: "/src/page.ts",
    body: `
<main id="documentation" tabindex="-1" class="reference">
  <header class="intro">
    <h1>${words.reference}</h1>
    <p>${words.referenceLead} <a href="openapi.json" dir="ltr">openapi.json</a></p>
  </header>
  <div class="layout">
    ${contents(headings, words)}
    <article class="prose" data-search>${html}</article>
  </div>
</main>`,
  });
}

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

function contents(headings: Heading[], words: Words): string {
  const items = headings.map(({ id, text }) => `<li><a href="#${id}">${text}</a></li>`).join("");
  return `<nav class="contents" aria-label="${words.contents}"><p>${words.contents}</p><ol>${items}</ol></nav>`;
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
<link rel="icon" type="image/svg+xml" href="/site/mark.svg">
<link rel="preload" as="font" type="font/woff2" crossorigin
  href="/node_modules/vazirmatn/fonts/webfonts/Vazirmatn[wght].woff2">
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
  <a href="${root}site/licences.txt">${words.licences}</a>
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
</body>
</html>`;
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
