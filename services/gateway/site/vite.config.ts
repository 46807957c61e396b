import { defineConfig } from "vite";
import { compressed } from "./build/compressed.ts";
import { documents, pages } from "./build/documents.ts";
import { licences } from "./build/licences.ts";

// URLs are relative, so that the page works under any path of a proxy.
export default defineConfig({
  base: "./",
  build: {
    assetsDir: "site/assets",
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 300,
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    // A busy machine is no reason for a warning.
    rolldownOptions: { input: Object.keys(pages), checks: { bundlerTimings: false } },
    target: "es2023",
  },
  plugins: [documents(), licences(), compressed()],
});
