"""Measure the gateway beside vllm-router and sglang-router: `python -m bench.tokens.peers`.

The routers are written in Rust. They pass an HTTP stream on as it is, without keys, limits, budgets, accounting,
parsing of tool calls, or a language of their own between the parts; the gateway does all of that. So the figures say
what these features and Python cost, and not which of the programs is better.

Examples:
  make bench-peers
  python -m bench.tokens.peers --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.ratios import summary, table
from bench.tokens.__main__ import STARTS_PER_SECOND, tokens
from bench.tokens.gateway_alone import PEERS, PEERS_PYTHON, running
from services.stack.display import Display

STREAMS = (32, 256)
NAMES = ("gateway", *PEERS, "bare")


async def measure(rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run all rounds, in turns."""
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), Display(Console(stderr=True)), peers=True) as alone:
            for _ in range(rounds):
                for streams in STREAMS:
                    for name in NAMES:
                        row = await asyncio.to_thread(tokens, alone, name, streams, rate=STARTS_PER_SECOND)
                        results.setdefault(f"{name} {streams}", []).append(row)
    return results


def report(results: dict[str, list[dict[str, float]]]) -> str:
    """Format the results as a table of medians and ranges over the rounds."""

    def cell(name: str, streams: int, field: str, digits: int) -> str:
        return summary([row[field] for row in results[f"{name} {streams}"]], digits=digits)

    rows = [
        [
            name,
            *(cell(name, streams, "us_per_token", 1) for streams in STREAMS),
            *(cell(name, streams, "first_ms_p50", 0) for streams in STREAMS),
        ]
        for name in NAMES
    ]
    head = [f"µs/token, {streams} streams" for streams in STREAMS]
    return table(["", *head, *(f"First token p50, ms, {streams} streams" for streams in STREAMS)], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write all rounds to this file")
    options = parser.parse_args()
    if not PEERS_PYTHON.exists():
        sys.exit("error: the routers are not installed; run: make .cache/peers/.installed")
    results = asyncio.run(measure(options.rounds))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report(results))


if __name__ == "__main__":
    main()
