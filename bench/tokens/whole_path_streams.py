"""Streams through Triton, worker and gateway: the cost of a token in each, and the delay of gathering a step."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from bench.tokens import whole_path
from bench.tokens.load_client import Row, percentiles
from bench.tokens.part import Options, Recorder, Rows, display
from bench.tokens.whole_path import TOKENS

STREAMS: Final = 256
STARTS_PER_SECOND: Final = 200.0


async def whole(options: Options) -> Rows:
    """Measure 256 streams of 50 tokens per second through everything, with the client, on all cores."""
    recorder, tokens = Recorder(), options.choose(TOKENS, 50)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with whole_path.running(Path(directory), display()) as path:
            await path.run(16, rate=0, tokens=20)
            for _ in range(options.rounds):
                report = await path.run(STREAMS, rate=STARTS_PER_SECOND, tokens=tokens)
                generated = STREAMS * tokens
                parts = {part: seconds / generated * 1e6 for part, seconds in report["parts_cpu_seconds"].items()}
                first_p50, first_p99 = percentiles(report["first_ms"])
                gap_p50, _, gap_p99 = report["gap_ms"]
                row = {
                    **parts,
                    "sum": sum(parts.values()),
                    "client": report["cpu_seconds"] / generated * 1e6,
                    "tokens_per_second": generated / report["seconds"],
                    "computed_tokens_per_second": 1e6 / max(parts.values()),
                    "first_ms_p50": first_p50,
                    "first_ms_p99": first_p99,
                    "gap_ms_p50": gap_p50,
                    "gap_ms_p99": gap_p99,
                    "errors": report["errors"],
                }
                recorder.add("whole path", row)
    return recorder.rows


async def gathering(options: Options) -> Rows:
    """Measure how long the outputs of a step wait in the worker for the others, with 256 streams.

    The worker notes the times itself, which costs it a little: its processor time is measured by `whole`.
    """
    recorder, tokens = Recorder(), options.choose(TOKENS, 50)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with whole_path.running(Path(directory), display(), timed=True) as path:
            await path.run(16, rate=0, tokens=20)
            for _ in range(options.rounds):
                began = time.monotonic()
                await path.run(STREAMS, rate=STARTS_PER_SECOND, tokens=tokens)
                recorder.add("gathering", _delays(path, began))
    return recorder.rows


def _delays(path: whole_path.WholePath, began: float) -> Row:
    notes = [note for note in path.notes("worker") if note["what"] == "gathered" and note["at"] >= began]
    delays = [delay for note in notes for delay in note["ms"]]
    p50, p99 = percentiles(delays)
    first_p50, first_p99 = percentiles([note["ms"][0] for note in notes])
    return {
        "delay_ms_p50": p50,
        "delay_ms_p99": p99,
        "first_delay_ms_p50": first_p50,
        "first_delay_ms_p99": first_p99,
        "outputs_per_message": len(delays) / len(notes),
    }
