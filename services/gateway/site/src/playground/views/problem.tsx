import { number } from "../../language.ts";
import type { Problem } from "../problem.ts";
import { problemText } from "../problem-text.ts";
import { words } from "../words.ts";

export function ProblemView({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <p>
        <b>{problemText(problem)}</b> {problem.retryAfter && words.retryIn(number(problem.retryAfter))}
      </p>
      {problem.message && (
        <p>
          {words.serverSays} <bdi lang={problem.language}>{problem.message}</bdi>
        </p>
      )}
      {problem.requestId && (
        <p>
          {words.requestId}: <code dir="ltr">{problem.requestId}</code>
        </p>
      )}
    </div>
  );
}
