"""Measure what a token and a short request cost: `python -m bench.tokens [PART …]`.

Parts, with the minutes of a full run:

  streams      the gateway and a bare writer with 32, 256 and 1,000 streams (7)
  spread       1,000 streams on one core, 20 starts per second (10)
  burst        1,000 starts at once (1)
  requests     short requests (1)
  first_token  the first token beside a direct gRPC call (1)
  whole        gateway, worker and Triton (1)
  gathering    the delay of gathering a step in the worker (1)
  prompts      prompts of 10,000 to 100,000 tokens (1)
  memory       5,000 open streams (4)
  litellm      beside LiteLLM, also with its Rust path (6, with Anthropic's API two rounds)
  methods      LiteLLM by the method of bench.gateway, turned into this one step by step (3, three rounds)
  peers        beside vllm-router and sglang-router (4, three rounds)
  aiperf       the load client beside aiperf (2)
  flame        a flame graph, with py-spy (1, one round); only root may read other processes, or everybody where the
               kernel's setting yama.ptrace_scope is 0

A part replaces its own results in docs/benchmarks/tokens.json, unless it fails. Then the plots beside it and the
section of docs/benchmarks.md are written again. With --quick, everything is tiny, and nothing in docs is changed.

Examples:
  make bench-tokens
  python -m bench.tokens streams whole
  python -m bench.tokens --quick
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Final

from bench import document
from bench.tokens import beside_aiperf, beside_others, long_prompts, profiling, short_requests, streaming, two_methods
from bench.tokens import whole_path_streams as whole_path
from bench.tokens.part import Measure, Options
from bench.tokens.plots import Line, draw
from bench.tokens.report import report
from bench.tokens.results import Results
from bench.tokens.servers import PEERS

DIRECTORY: Final = document.PAGE.parent / "benchmarks"
ROUNDS: Final = 5
MEASURES: Final[dict[str, Measure]] = {
    "streams": streaming.streams,
    "spread": streaming.spread,
    "burst": streaming.burst,
    "requests": short_requests.requests,
    "first_token": short_requests.first_token,
    "whole": whole_path.whole,
    "gathering": whole_path.gathering,
    "prompts": long_prompts.prompts,
    "memory": streaming.memory,
    "litellm": beside_others.litellm,
    "methods": two_methods.methods,
    "peers": beside_others.peers,
    "aiperf": beside_aiperf.aiperf,
}
FLAME: Final = "flame"
FEWER_ROUNDS: Final = {"methods": 3, "peers": 3, FLAME: 1}
"""Parts without a target of their own."""


def write_plots(results: Results, directory: Path) -> None:
    """Draw cost and first tokens over the number of streams, from the parts `streams` and `peers`."""

    def points(part: str, name: str, field: str) -> list[tuple[float, list[float]]]:
        series = [(each.rpartition(" "), rows) for each, rows in results.rows(part).items()]
        return sorted((float(number), [row[field] for row in rows]) for (who, _, number), rows in series if who == name)

    if "streams" not in results:
        return
    lines = [
        Line(title, points("streams", name, "us_per_token"))
        for name, title in (("gateway", "gateway"), ("bare", "bare writer"))
    ]
    if "peers" in results:
        lines += [Line(name, points("peers", name, "us_per_token")) for name in PEERS]
    title = "Processor time of a token (µs; medians and ranges)"
    (directory / "cpu.svg").write_text(draw(title, lines, x_label="streams of 50 tokens per second"))
    lines = [
        Line(f"{title} {which}", points("streams", name, f"first_ms_{which}"))
        for name, title in (("gateway", "gateway"), ("bare", "bare writer"))
        for which in ("p50", "p99")
    ]
    title = "Time to the first token (ms; medians and ranges)"
    plot = draw(title, lines, x_label="streams of 50 tokens per second, 200 starts per second", is_logarithmic=True)
    (directory / "first_token.svg").write_text(plot)


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tokens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, fewer for slow parts")
    parser.add_argument("--quick", action="store_true", help="one tiny round; nothing in docs is changed")
    parser.add_argument("--directory", type=Path, help="for the JSON file and the plots (default: docs/benchmarks)")
    options = parser.parse_args()
    measures = {**MEASURES, FLAME: None}
    if unknown := set(options.parts) - set(measures):
        sys.exit(f"error: unknown part {min(unknown)!r}; choose from {', '.join(measures)}")
    directory = options.directory or (Path(tempfile.mkdtemp(prefix="vilix-bench-")) if options.quick else DIRECTORY)
    directory.mkdir(parents=True, exist_ok=True)
    results = Results(directory)
    # That of the time before: each part loads the machine itself.
    load_average, _, _ = os.getloadavg()
    failed = []
    for part in options.parts or measures:
        rounds = options.rounds or (1 if options.quick else FEWER_ROUNDS.get(part, ROUNDS))
        measure = MEASURES.get(part) or partial(profiling.flame, plot=directory / "flame.svg")
        print(f"{part}: {rounds} rounds", file=sys.stderr, flush=True)
        try:
            rows = asyncio.run(measure(Options(rounds, is_quick=options.quick)))
        except Exception:  # noqa: BLE001  # the results of the other parts are still wanted
            traceback.print_exc()
            failed.append(part)
            continue
        results.replace(part, rows, load_average=load_average)
        write_plots(results, directory)
    text = report(results)
    if directory == DIRECTORY:
        document.replace("tokens", text)
    print(text)
    if failed:
        sys.exit(f"error: without new results, for the reasons above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
