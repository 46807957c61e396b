"""Count the tool calls that small models write under `tool_choice: auto`: `python -m bench.auto_calls`.

The engine llamacpp answers the prompts in prompts.yaml, with their tools, at temperature 0. The table says how often
the right call came, in which form, and how often a call came where text or JSON was right. Weights are downloaded if
necessary. Answers are kept in files, so that an interrupted run continues; prompts without an answer are left out of
the table.

Examples:
  python -m bench.auto_calls
  python -m bench.auto_calls qwen2.5-coder-0.5b --threads 1
  python -m bench.auto_calls --records DIRECTORY --only-table
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.auto_calls.judging import judge, report
from bench.auto_calls.prompts import Prompt, prompt_sets
from bench.auto_calls.recording import read_records, record
from services.inference.model.catalog import load_model
from services.stack.cores import engine_threads
from services.stack.display import Display
from services.stack.local_models import catalog_model

CACHE: Final = Path(__file__).parents[2] / ".cache"


MODELS: Final = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")


def main() -> None:
    """Record the answers that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help="default: both Qwen2.5-Coder")
    parser.add_argument(
        "--records", type=Path, default=CACHE / "auto_calls", metavar="DIRECTORY", help="of files MODEL.jsonl"
    )
    parser.add_argument("--only-table", action="store_true", help="record nothing")
    parser.add_argument("--threads", type=int, default=engine_threads(), help="the threads of the engine")
    options = parser.parse_args()
    sets, judged = prompt_sets(), {}
    for model in options.models:
        records: Path = options.records / f"{model}.jsonl"
        if not options.only_table:
            records.parent.mkdir(parents=True, exist_ok=True)
            _record(model, sets, records, threads=options.threads)
        judged[model] = judge(chain.from_iterable(sets), read_records(records))
    print(report(judged))


def _record(model: str, sets: Sequence[Sequence[Prompt]], records: Path, *, threads: int) -> None:
    with Display(Console(stderr=True)).download(f"preparing {model}") as progress:
        directory = catalog_model(model, CACHE, progress).directory
    record(sets, directory, load_model(model).sampling.model_dump(exclude_none=True), records, threads=threads)


if __name__ == "__main__":
    main()
