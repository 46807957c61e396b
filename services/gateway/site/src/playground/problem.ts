/** Problems of requests. */

export interface Problem {
  kind: "api" | "network" | "cut";
  status?: number;
  code?: string | null;
  type?: string;
  param?: string | null;
  /** The message of the server. */
  message?: string;
  /** The language of the message, if the server states it. */
  language?: string;
  requestId?: string;
  /** The time to wait in seconds. */
  retryAfter?: number;
}

export class ApiProblem extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.message ?? problem.kind);
    this.problem = problem;
  }
}

/** Returns the problem of an unsuccessful response. */
export async function problemOf(response: Response): Promise<Problem> {
  const body = (await response.json().catch(() => ({}))) as { error?: Partial<Problem> };
  const retryAfter = Number(response.headers.get("retry-after"));
  return {
    kind: "api",
    status: response.status,
    ...errorFields(body.error),
    language: response.headers.get("content-language") ?? undefined,
    requestId: response.headers.get("x-request-id") ?? undefined,
    retryAfter: retryAfter > 0 ? retryAfter : undefined,
  };
}

/** Returns the fields of OpenAI's error object. */
export function errorFields(error: Partial<Problem> | undefined): Partial<Problem> {
  return { message: error?.message, type: error?.type, code: error?.code, param: error?.param };
}
