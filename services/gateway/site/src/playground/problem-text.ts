import type { Problem } from "./problem.ts";
import { words } from "./words.ts";

/** Returns the description of a problem in the page's language. */
export function problemText(problem: Problem): string {
  const { errors } = words;
  if (problem.kind !== "api") return errors[problem.kind];
  // A failure during a stream has no status.
  const key = [problem.code, problem.status, problem.type].find((name) => name != null && name in errors);
  return key == null ? errors.server : errors[key as keyof typeof errors];
}
