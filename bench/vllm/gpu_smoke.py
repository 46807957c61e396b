"""Check the engine vllm with the installed vLLM on a machine with a GPU, and measure what the engine costs.

Run it in the image of the engine from the root of the repository: `python3 -m bench.vllm.gpu_smoke /models/qwen3-8b`.
Without a checkpoint, `--shape qwen3-0.6b --tokenizer DIRECTORY` makes one with random weights: answers are then not
checked. With `--arguments '{"load_format": "dummy"}'`, vLLM makes the weights by itself.

The checks run with the engine in this process. Then the throughput of vLLM called directly is compared with that of the
engine, and with Triton's stream of steps, which needs gRPC's and Triton's packages for Python.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import triton_server
from bench.trtllm.gpu_smoke import OK, Report, Row
from bench.trtllm.subject import Skipped, Subject
from bench.vllm import random_model, throughput
from bench.vllm.checks import CHECKS, OF_LEARNED
from services.inference.triton_backend.engines import vllm
from services.inference.weights.model_repository import write_model

MODEL = "smoke"
LOAD_SECONDS = 400


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="gpu-smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="directory of a checkpoint")
    parser.add_argument("--shape", choices=random_model.SHAPES, help="make a checkpoint with random weights instead")
    parser.add_argument("--tokenizer", type=Path, metavar="DIRECTORY", help="Qwen3's tokenizer, for --shape")
    parser.add_argument("--context-length", type=int, default=4096, metavar="TOKENS")
    parser.add_argument("--slots", type=int, default=256, metavar="REQUESTS")
    parser.add_argument("--arguments", type=json.loads, default={}, metavar="JSON", help="more arguments of the engine")
    parser.add_argument("--only", nargs="*", choices=CHECKS, metavar="CHECK", help=f"some of {', '.join(CHECKS)}")
    parser.add_argument("--concurrent", nargs="*", type=int, default=throughput.CONCURRENT, metavar="REQUESTS")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--without-triton", action="store_true", help="check and measure in this process only")
    where.add_argument("--only-triton", action="store_true", help="measure in Triton only")
    parser.add_argument("--seconds", type=float, default=570, help="begin no check after this time; default: 570")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if (options.model is None) == (options.shape is None or options.tokenizer is None):
        parser.error("name a directory, or a shape and a tokenizer")
    return options


def main(options: argparse.Namespace) -> int:
    """Run the checks, and return the exit code: 0 if none failed."""
    # Standard output is the report's.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    report = Report(as_json=options.json, seconds=options.seconds, promises={})
    with tempfile.TemporaryDirectory() as temporary:
        if options.model is None:
            is_dummy = options.arguments.get("load_format") == "dummy"
            random_model.write(Path(temporary), options.shape, options.tokenizer, with_weights=not is_dummy)
        engine_args = {
            "model": options.model or temporary,
            "context_length": options.context_length,
            "slots": options.slots,
            **options.arguments,
        }
        if not options.only_triton:
            _in_process(options, engine_args, report)
        if options.concurrent and not options.without_triton:
            report.check("triton", lambda: _in_triton(engine_args, options.concurrent, report), needs=60)
    return report.finish()


def _in_process(options: argparse.Namespace, engine_args: dict[str, Any], report: Report) -> None:
    engine: Any = report.check("load", lambda: vllm.create(engine_args))
    if engine is None:
        return
    report.rows.append(Row("version", OK, 0.0, engine.version))
    subject = Subject(engine, Path(engine_args["model"]))
    for name in options.only if options.only is not None else CHECKS:
        if options.model is not None or name not in OF_LEARNED:
            report.check(name, functools.partial(CHECKS[name], subject))
    for count in options.concurrent:
        report.check(f"direct {count}", functools.partial(_best, throughput.direct, subject, count))
        report.check(f"engine {count}", functools.partial(_best, throughput.through_engine, subject, count))
    report.check("close", engine.close)


def _best(measure: Any, subject: Subject, count: int) -> str:
    """Return the better of two measurements, because the first one may compile kernels."""
    paces = [measure(subject, count, 2 * count + number) for number in range(2)]
    return str(max(paces, key=lambda pace: pace.tokens_per_s))


def _in_triton(engine_args: dict[str, Any], counts: list[int], report: Report) -> str:
    try:
        importlib.import_module("services.worker.triton_client")
    except (ImportError, RuntimeError) as error:
        # tritonclient raises the latter where a package that it needs is missing.
        raise Skipped(f"the client of Triton cannot be imported: {error}") from None

    def write(repository: Path) -> None:
        write_model(repository, model_id=MODEL, engine="vllm", engine_args=engine_args)

    began = time.monotonic()
    try:
        with triton_server.serving(write, min(LOAD_SECONDS, report.left)) as target:
            loaded = time.monotonic() - began
            paces, described = throughput.through_triton(target, MODEL, counts)
    except FileNotFoundError as error:
        raise Skipped(f"{error}") from None
    return "; ".join([f"ready after {loaded:.0f} s", *map(str, paces), described])


if __name__ == "__main__":
    # vLLM starts processes that import this module; without this condition, they would run the checks again.
    status = main(arguments())
    # Threads of a dead engine may never end.
    sys.stdout.flush()
    os._exit(status)
