"""Check the embeddings engines on a machine with a GPU, and measure them.

`python -m bench.embeddings.gpu_smoke /models/Qwen3-Embedding-0.6B` needs torch and transformers, and for `trtllm`
TensorRT-LLM 1.3 or newer. Without a checkpoint, `--shape 0.6b` makes one with random weights. An engine that cannot be
loaded is skipped. The exit code is 1 if a check has failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.embeddings import random_encoder
from bench.embeddings.encoder_checks import CHECKS, Subject

ENGINES = ("transformers", "trtllm")
LEAST_COSINE = 0.99
"""The least cosine similarity of the vectors of two engines in bfloat16."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="gpu-smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path, help="directory of a checkpoint")
    parser.add_argument("--shape", choices=random_encoder.SHAPES, help="make a checkpoint with random weights instead")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"some of {', '.join(CHECKS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args()
    if (options.model is None) == (options.shape is None):
        parser.error("name a directory or a shape")
    return options


class Report:
    """The results of checks, which are printed as they come."""

    def __init__(self, *, as_json: bool) -> None:
        """Print JSON at the end, or lines."""
        self.rows: list[dict[str, Any]] = []
        self._as_json = as_json

    def check(self, engine: str, name: str, what: Callable[[], dict[str, Any]]) -> None:
        """Run a check, and note the figures that it returns, or its failure."""
        began = time.perf_counter()
        try:
            figures = what()
            result = "–" if "skipped" in figures else "ok"
        except Exception as error:  # noqa: BLE001 - the other checks run after any failure
            result, figures = "FAILED", {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        seconds = round(time.perf_counter() - began, 3)
        self.rows.append({"engine": engine, "check": name, "result": result, "seconds": seconds, **figures})
        if not self._as_json:
            detail = ", ".join(f"{key} {value}" for key, value in figures.items())
            print(f"{result:>7}  {engine:<12} {name:<12} {seconds:8.1f} s  {detail}", flush=True)

    def finish(self) -> int:
        """Print JSON if it is wanted, and return the exit code."""
        if self._as_json:
            print(json.dumps(self.rows, indent=1))
        return int(any(row["result"] == "FAILED" for row in self.rows))


def main(options: argparse.Namespace) -> int:
    """Run the checks, and return the exit code."""
    report = Report(as_json=options.json)
    with tempfile.TemporaryDirectory() as temporary:
        if options.model is None:
            random_encoder.write(Path(temporary), options.shape)
        directory = options.model or Path(temporary)
        vectors = {}
        for name in options.engines:
            subject = Subject(directory, name)
            try:
                description = subject.load()
            except (ImportError, ValueError) as error:
                print(f"{name}: skipped: {error}", file=sys.stderr)
                continue
            report.check(name, "load", lambda description=description: description)
            for check in options.only or CHECKS:
                report.check(name, check, lambda check=check, subject=subject: CHECKS[check](subject))
            if len(options.engines) > 1:
                vectors[name] = subject.embed(subject.rows)
            del subject
            gc.collect()
        if len(vectors) > 1:
            report.check("both", "cosine", lambda: _compared(*vectors.values()))
    return report.finish()


def _compared(one: Any, other: Any) -> dict[str, Any]:
    cosine = float((one * other).sum(axis=1).min())
    if not np.isfinite(cosine) or cosine < LEAST_COSINE:
        raise AssertionError(f"the least cosine between the engines is {cosine:.5f}")
    return {"least_cosine": round(cosine, 5)}


if __name__ == "__main__":
    sys.exit(main(arguments()))
