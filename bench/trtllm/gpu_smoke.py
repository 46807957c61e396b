"""Check the engine trtllm with the installed TensorRT-LLM and a real model, on a machine with a GPU, in ten minutes.

Run it in one of our GPU images from the root of the repository: `make gpu-smoke MODEL=/models/qwen3-8b ARGS=--json`,
with VILIX_MPI=1. The image contains everything that it needs. The report ends with a verdict for each promise.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.trtllm import process_checks
from bench.trtllm.checks import CHECKS
from bench.trtllm.promises import PROMISES, verdict
from bench.trtllm.subject import Skipped, Subject
from services.inference.triton_backend.engines import trtllm
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi

SERVED_SECONDS = 40
"""The time that Triton needs besides loading the model once more."""
OK, FAILED, SKIPPED = "ok", "FAILED", "–"


@dataclass(frozen=True)
class Row:
    """The result of one check."""

    check: str
    result: str
    seconds: float
    detail: str


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="gpu-smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="directory of a checkpoint")
    parser.add_argument("--context-length", type=int, default=4096, metavar="TOKENS")
    parser.add_argument("--slots", type=int, default=8, metavar="REQUESTS")
    parser.add_argument(
        "--arguments",
        type=json.loads,
        default={"guided_decoding_backend": "xgrammar"},
        metavar="JSON",
        help='more arguments of the engine, as in the catalog; default: {"guided_decoding_backend": "xgrammar"}',
    )
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"some of {', '.join(CHECKS)}")
    parser.add_argument("--seconds", type=float, default=570, help="begin no check after this time; default: 570")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


class Report:
    """The results of checks, which are printed as they come."""

    def __init__(self, *, as_json: bool, seconds: float, promises: Mapping[str, tuple[str, ...]] = PROMISES) -> None:
        """Print JSON at the end, or lines. After `seconds`, no further check is begun."""
        self.rows: list[Row] = []
        self._promises = promises
        self._as_json = as_json
        self._ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._ends - time.monotonic()

    def check(self, name: str, what: Callable[[], Any], *, needs: float = 5) -> Any:
        """Run a check that takes about `needs` seconds. Return its value, or None if it does not hold."""
        began, value = time.perf_counter(), None
        try:
            value = what() if self.left >= needs else _no_time()
            result, detail = OK, value if isinstance(value, str) else ""
        except Skipped as reason:
            result, detail = SKIPPED, str(reason)
        except Exception as error:  # noqa: BLE001 - the other checks run after any failure
            result, detail = FAILED, str(error) or type(error).__name__
        row = Row(name, result, round(time.perf_counter() - began, 3), " ".join(detail.split()))
        self.rows.append(row)
        if not self._as_json:
            print(f"{row.result:>7}  {name:<20} {row.seconds:8.1f} s  {row.detail}", flush=True)
        return value if result == OK else None

    def finish(self) -> int:
        """Print the verdicts, and return the exit code: 0 if nothing failed."""
        failed = [row.check for row in self.rows if row.result == FAILED]
        results = {row.check: row.result for row in self.rows}
        verdicts = {promise: verdict(promise, results, ok=OK, failed=FAILED) for promise in self._promises}
        if self._as_json:
            report = {"checks": [asdict(row) for row in self.rows], "promises": verdicts}
            print(json.dumps(report, ensure_ascii=False, indent=1))
        else:
            print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
            for promise, result in verdicts.items():
                print(f"{result:>9}: {promise}")
        sys.stdout.flush()
        return 1 if failed else 0


def _no_time() -> Any:
    raise Skipped("there is not enough time left")


def main(options: argparse.Namespace) -> int:
    """Run the checks, and return the exit code: 0 if none failed."""
    report = Report(as_json=options.json, seconds=options.seconds)

    def give_up() -> None:
        report.rows.append(Row("time", FAILED, options.seconds, "a check did not end"))
        report.finish()
        os._exit(1)

    limit = threading.Timer(options.seconds + 30, give_up)
    limit.daemon = True
    limit.start()
    if report.check("import", imported):
        engine_args = {
            "model": options.model,
            "context_length": options.context_length,
            "slots": options.slots,
            "stall_seconds": process_checks.STALL_SECONDS,
            **options.arguments,
        }
        engine = report.check("load", lambda: trtllm.create(engine_args))
        if engine is not None:
            subject = Subject(engine, Path(options.model))
            for name in options.only or CHECKS:
                report.check(name, lambda name=name: CHECKS[name](subject))
            report.check("close", engine.close)
            if not options.only:
                # Both load the model once more.
                needs = next(row.seconds for row in report.rows if row.check == "load") + SERVED_SECONDS
                report.check("served", lambda: process_checks.served(engine_args, report.left), needs=needs)
                needs += process_checks.NOTICE_SECONDS
                report.check("death", lambda: process_checks.death(engine_args, report.left), needs=needs)
    return report.finish()


def imported() -> str:
    """Return the version of TensorRT-LLM, and the properties of its API that depend on it."""
    api = TrtllmApi()
    import tensorrt_llm  # noqa: PLC0415 - it must not be imported before the environment is ready

    takes = inspect.signature(tensorrt_llm.LLM.generate_async).parameters
    has = [name for name in ("cache_salt", "priority", "trace_headers", "prompt_adapter_request") if name in takes]
    ignored = {
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "min_p",
        "seed",
        "min_tokens",
        "logit_bias",
    } - api.supported_parameters({})
    ignores = ", ".join(sorted(ignored)) or "nothing"
    return f"{api.version}; generate_async has {', '.join(has)}; its default sampler does not honour {ignores}"


if __name__ == "__main__":
    # TensorRT-LLM starts processes that import this module; without this condition, they would run the checks again.
    status = main(arguments())
    # Threads of a dead engine may never end.
    os._exit(status)
