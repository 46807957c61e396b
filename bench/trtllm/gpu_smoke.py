"""Check the engine trtllm with the installed TensorRT-LLM and a real model, on a machine with a GPU.

Run it in NVIDIA's image from the root of the repository: `make gpu-smoke MODEL=/models/qwen3-8b ARGS=--json`. The image
contains everything that it needs.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.trtllm.checks import CHECKS
from bench.trtllm.subject import Skipped, Subject
from services.inference.triton_backend.engines import trtllm
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi

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
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def main(options: argparse.Namespace) -> int:
    """Run the checks, and return the exit code: 0 if none failed."""
    rows: list[Row] = []

    def check(name: str, what: Callable[[], Any]) -> Any:
        began, value = time.perf_counter(), None
        try:
            value = what()
            result, detail = OK, value if isinstance(value, str) else ""
        except Skipped as reason:
            result, detail = SKIPPED, str(reason)
        except Exception as error:  # noqa: BLE001 - the other checks run after any failure
            result, detail = FAILED, str(error) or type(error).__name__
        rows.append(Row(name, result, round(time.perf_counter() - began, 3), " ".join(detail.split())))
        if not options.json:
            print(f"{rows[-1].result:>7}  {name:<20} {rows[-1].seconds:8.1f} s  {rows[-1].detail}", flush=True)
        return value if result == OK else None

    if check("import", imported):
        engine_args = {
            "model": options.model,
            "context_length": options.context_length,
            "slots": options.slots,
            **options.arguments,
        }
        engine = check("load", lambda: trtllm.create(engine_args))
        if engine is not None:
            subject = Subject(engine)
            for name in options.only or CHECKS:
                check(name, lambda name=name: CHECKS[name](subject))
            check("close", engine.close)
    failed = [row.check for row in rows if row.result == FAILED]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1))
    else:
        print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return 1 if failed else 0


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
    } - api.supported_parameters({})
    ignores = ", ".join(sorted(ignored)) or "nothing"
    return f"{api.version}; generate_async has {', '.join(has)}; its default sampler ignores {ignores}"


if __name__ == "__main__":
    # TensorRT-LLM starts processes that import this module; without this condition, they would run the checks again.
    sys.exit(main(arguments()))
