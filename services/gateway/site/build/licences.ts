import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

/** Writes `site/licences.txt` with the licences of all packages that the page contains. */
export function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const { dependencies } = JSON.parse(readFileSync("package.json", "utf8")) as {
        dependencies: Record<string, string>;
      };
      const texts = Object.keys(dependencies)
        .sort()
        .map((name) => `${name}\n${"=".repeat(name.length)}\n\n${licenceOf(join("node_modules", name))}`);
      this.emitFile({ type: "asset", fileName: "site/licences.txt", source: texts.join("\n\n\n") });
    },
  };
}

function licenceOf(directory: string): string {
  const file = readdirSync(directory).find((name) => /^(licen[cs]e|ofl)/i.test(name));
  if (file === undefined) throw new Error(`${directory} has no licence file`);
  return readFileSync(join(directory, file), "utf8").trim();
}
