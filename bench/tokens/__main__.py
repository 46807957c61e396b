"""Measure what a token and a short request cost: `python -m bench.tokens`.

All features are on: keys, every kind of limit, usage, metrics, logs. The gateway alone and a bare writer take turns on
one core; the whole path, with Triton and a worker, follows on all cores.

Examples:
  python -m bench.tokens
  python -m bench.tokens --rounds 1 --streams 32
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from rich.console import Console

from bench.ratios import summary, table
from bench.tokens import whole_path
from bench.tokens.gateway_alone import STEP_MS, TOKENS, Alone, running
from services.stack.display import Display

STREAMS: Final = (32, 256, 1000)
WHOLE_PATH_STREAMS: Final = 256
REQUESTS: Final = 2000
CLIENTS: Final = 16
STARTS_PER_SECOND: Final = 200.0


def tokens(alone: Alone, name: str, streams: int, *, rate: float) -> dict[str, float]:
    """Measure one round of `streams` streams of TOKENS tokens."""
    request = alone.request(stream=True, max_tokens=TOKENS)
    report = alone.run(name, request, connections=streams, requests=streams, rate=rate)
    generated = streams * TOKENS
    firsts, totals = report["first_ms"], report["total_ms"]
    return {
        "us_per_token": report["cpu_seconds"] / generated * 1e6,
        "tokens_per_second": generated / report["seconds"],
        "first_ms_p50": median(firsts),
        "first_ms_p99": quantiles(firsts, n=100)[98],
        "stream_seconds": median(totals) / 1000,
        "slowest_to_mean": max(totals) / (sum(totals) / len(totals)),
        "errors": report["errors"],
        "rss_mb": report["rss_mb"],
        "kb_per_stream": report["grown_mb"] * 1000 / streams,
    }


def requests(alone: Alone, *, stream: bool, max_tokens: int, clients: int, count: int) -> dict[str, float]:
    """Measure one round of short requests."""
    request = alone.request(stream=stream, max_tokens=max_tokens)
    report = alone.run("instant_gateway", request, connections=clients, requests=count)
    return {
        "ms_per_request": report["cpu_seconds"] / count * 1e3,
        "requests_per_second": count / report["seconds"],
        "first_ms_p50": median(report["first_ms"]),
        "first_ms_p99": quantiles(report["first_ms"], n=100)[98],
        "errors": report["errors"],
    }


async def whole_path_rounds(rounds: int) -> list[dict[str, float]]:
    """Measure WHOLE_PATH_STREAMS streams through Triton, worker and gateway."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with whole_path.running(Path(directory), Display(Console(stderr=True))) as path:
            await path.run(8, rate=0)
            for _ in range(rounds):
                report = await path.run(WHOLE_PATH_STREAMS, rate=STARTS_PER_SECOND)
                generated = WHOLE_PATH_STREAMS * TOKENS
                row = {part: seconds / generated * 1e6 for part, seconds in report["cpu_seconds"].items()}
                rows.append({**row, "tokens_per_second": generated / report["seconds"], "errors": report["errors"]})
                print("whole path", rows[-1], file=sys.stderr)
    return rows


async def measure(rounds: int, streams: list[int]) -> dict[str, Any]:
    """Run all measurements, interleaved."""
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), Display(Console(stderr=True))) as alone:
            await asyncio.to_thread(requests, alone, stream=True, max_tokens=4, clients=CLIENTS, count=200)
            for _ in range(rounds):
                for number in streams:
                    for name in ("bare", "gateway"):
                        row = await asyncio.to_thread(tokens, alone, name, number, rate=STARTS_PER_SECOND)
                        results.setdefault(f"{name} {number}", []).append(row)
                        print(name, number, {k: round(v, 2) for k, v in row.items()}, file=sys.stderr)
                for label, stream, most in (("whole", False, 8), ("streamed", True, 4)):
                    row = await asyncio.to_thread(
                        requests, alone, stream=stream, max_tokens=most, clients=CLIENTS, count=REQUESTS
                    )
                    results.setdefault(label, []).append(row)
                    print(label, {k: round(v, 2) for k, v in row.items()}, file=sys.stderr)
                row = await asyncio.to_thread(requests, alone, stream=True, max_tokens=4, clients=1, count=300)
                results.setdefault("one client", []).append(row)
                print("one client", {k: round(v, 2) for k, v in row.items()}, file=sys.stderr)
    results["whole path"] = await whole_path_rounds(rounds)
    return results


def report(results: dict[str, list[dict[str, float]]], streams: list[int]) -> str:
    """Format the results as tables of medians and ranges over the rounds."""

    def column(name: str, field: str) -> list[float]:
        return [row[field] for row in results[name]]

    rows = []
    for number in streams:
        ours, bare = column(f"gateway {number}", "us_per_token"), column(f"bare {number}", "us_per_token")
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        rows.append(
            [
                f"{number} streams, a token every {STEP_MS:g} ms",
                summary(ours, digits=1),
                summary(bare, digits=1),
                f"**{summary(ratios)}**",
                summary(column(f"gateway {number}", "tokens_per_second"), digits=0),
                summary(column(f"gateway {number}", "first_ms_p50"), digits=0),
                summary(column(f"gateway {number}", "first_ms_p99"), digits=0),
                summary(column(f"gateway {number}", "slowest_to_mean")),
                # Later rounds find memory that an earlier one has left.
                f"{max(column(f'gateway {number}', 'kb_per_stream')):.0f}",
            ]
        )
    first = table(
        [
            *("", "Gateway, µs/token", "Bare writer, µs/token", "Ratio", "Tokens/s"),
            *("First token p50, ms", "p99, ms", "Slowest stream ÷ mean", "Memory per stream, kB"),
        ],
        rows,
    )
    rows = [
        [
            label,
            f"**{summary(column(name, 'ms_per_request'))}**",
            summary(column(name, "requests_per_second"), digits=0),
        ]
        for label, name in (("8 tokens, whole", "whole"), ("4 tokens, streamed", "streamed"))
    ]
    short = table(["Short requests", "Gateway, ms of CPU", "Requests/s"], rows)
    parts = [summary(column("whole path", part), digits=1) for part in whole_path.PARTS]
    sums = [sum(row[part] for part in whole_path.PARTS) for row in results["whole path"]]
    rate = summary(column("whole path", "tokens_per_second"), digits=0)
    whole = table(
        [f"{WHOLE_PATH_STREAMS} streams, µs/token", *whole_path.PARTS, "sum", "Tokens/s"],
        [["Qwen3's tokenizer, reasoning and tools", *parts, f"**{summary(sums, digits=1)}**", rate]],
    )
    return f"{first}\n\n{short}\n\n{whole}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", default=list(STREAMS))
    parser.add_argument("--json", type=Path, help="also write all rounds to this file")
    options = parser.parse_args()
    results = asyncio.run(measure(options.rounds, options.streams))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report(results, options.streams))


if __name__ == "__main__":
    main()
