import { useSignal } from "@preact/signals";
import { language, number } from "../../language.ts";
import { directionOf } from "../../markdown/direction.ts";
import { ApiProblem, type Problem } from "../problem.ts";
import { post } from "../requests.ts";
import { type Similarities, similarities } from "../similarity.ts";
import { embeddingModels, key } from "../store.ts";
import { words } from "../words.ts";
import { CodeDialog } from "./code-dialog.tsx";
import { Icon } from "./icons.tsx";
import { KeyBox, useIsKeyAsked } from "./key-box.tsx";
import { ProblemView } from "./problem.tsx";

const PATH = "/embeddings";
const MOST_LINES = 24;
const FALLBACK = language === "fa" ? "rtl" : "ltr";

interface Result extends Similarities {
  lines: string[];
  dimensions: number;
  tokens: number;
  milliseconds: number;
}

interface EmbeddingList {
  data: { embedding: number[] }[];
  usage: { prompt_tokens: number };
}

export function Vectors() {
  const isKeyAsked = useIsKeyAsked();
  const text = useSignal(words.vectorsSample);
  const chosen = useSignal("");
  const result = useSignal<Result | undefined>(undefined);
  const problem = useSignal<Problem | undefined>(undefined);
  const isBusy = useSignal(false);
  const displayedRequest = useSignal<Record<string, unknown> | undefined>(undefined);
  const lines = text.value
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  const model = embeddingModels.value.find(({ id }) => id === chosen.value) ?? embeddingModels.value[0];
  const hint =
    lines.length < 2 ? words.vectorsFew : lines.length > MOST_LINES ? words.vectorsMany(number(MOST_LINES)) : "";
  const body = { model: model?.id, input: lines };

  const measure = async () => {
    isBusy.value = true;
    problem.value = undefined;
    const began = performance.now();
    try {
      const response = await post(PATH, { ...body, encoding_format: "float" }, key.value);
      const { data, usage } = (await response.json()) as EmbeddingList;
      const vectors = data.map(({ embedding }) => embedding);
      result.value = {
        ...similarities(vectors),
        lines,
        dimensions: vectors[0]?.length ?? 0,
        tokens: usage.prompt_tokens,
        milliseconds: performance.now() - began,
      };
    } catch (error) {
      problem.value = error instanceof ApiProblem ? error.problem : { kind: "network" };
    }
    isBusy.value = false;
  };

  return (
    <div class="vectors">
      <header>
        <h2>{words.vectorsTitle}</h2>
        <p class="quiet">{words.vectorsText}</p>
      </header>
      {isKeyAsked && <KeyBox id="vectors-key" />}
      {embeddingModels.value.length === 0 ? (
        <p class="notice">{words.vectorsNone}</p>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void measure();
          }}
        >
          <textarea
            rows={7}
            aria-label={words.vectorsLabel}
            dir={directionOf(text.value, FALLBACK)}
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
          />
          <div class="row">
            <button type="submit" class="button primary" disabled={!key.value || isBusy.value || hint !== ""}>
              {words.vectorsCompute}
            </button>
            <select
              dir="ltr"
              aria-label={words.model}
              value={model?.id}
              onChange={(event) => {
                chosen.value = event.currentTarget.value;
              }}
            >
              {embeddingModels.value.map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
            </select>
            <button
              type="button"
              class="icon"
              onClick={() => {
                displayedRequest.value = body;
              }}
            >
              <Icon name="code" />
              <span>{words.showCodeShort}</span>
            </button>
            {hint && <span class="note">{hint}</span>}
          </div>
        </form>
      )}
      {problem.value && <ProblemView problem={problem.value} />}
      <div aria-live="polite">{result.value && !problem.value && <HeatMap result={result.value} />}</div>
      {displayedRequest.value && (
        <CodeDialog
          path={PATH}
          body={displayedRequest.value}
          onClose={() => {
            displayedRequest.value = undefined;
          }}
        />
      )}
    </div>
  );
}

/** Returns the class of a cell's depth, from which on its text has another colour for contrast, by day and by night. */
function shadeOf(share: number): string | undefined {
  return share > 0.855 ? "deeper" : share > 0.625 ? "deep" : undefined;
}

function HeatMap({ result }: { result: Result }) {
  const { matrix, lowest, highest, closest, lines } = result;
  const depth = (value: number) => (highest > lowest ? Math.min(1, (value - lowest) / (highest - lowest)) : 1);
  return (
    <figure class="heat-map">
      <table aria-label={words.vectorsMatrix}>
        <tbody>
          {matrix.map((row, index) => (
            <tr key={index}>
              <th scope="row" dir={directionOf(lines[index] ?? "", FALLBACK)} title={lines[index]}>
                <span>{lines[index]}</span>
              </th>
              {row.map((value, column) => {
                const share = index === column ? 1 : depth(value);
                return (
                  <td
                    key={column}
                    class={index === column ? "self" : shadeOf(share)}
                    style={index === column ? undefined : { "--depth": `${Math.round(share * 100)}%` }}
                  >
                    {index === column ? "" : number(value, 2)}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
      <figcaption>
        <p>
          {words.vectorsClosest} <bdi>{lines[closest[0]]}</bdi> ↔ <bdi>{lines[closest[1]]}</bdi>
        </p>
        <p class="quiet">
          {words.vectorsFacts(number(result.dimensions), number(result.tokens), number(result.milliseconds))}
        </p>
      </figcaption>
    </figure>
  );
}
