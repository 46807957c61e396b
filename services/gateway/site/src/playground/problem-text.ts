import type { Problem } from "./problem.ts";
import { words } from "./words.ts";

/** What went wrong, in the page's language. */
export function problemText(problem: Problem): string {
  const { errors } = words;
  if (problem.kind !== "api") return errors[problem.kind];
  const key = [problem.code, problem.type, problem.status].find((name) => name != null && name in errors);
  return key == null ? errors.server : errors[key as keyof typeof errors];
}
