"""Measure the gateway beside LiteLLM and beside direct calls of the worker: `python -m bench.gateway`.

All features are on: keys, every kind of limit, usage, metrics, logs. The program starts the processes that it needs,
prints a table, and stops them.

Examples:
  python -m bench.gateway
  python -m bench.gateway --quick --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.gateway.clients import DirectClient, HttpClient
from bench.gateway.system import INSTANT, LITELLM, PACED, PACED_MS, PACED_TOKENS, System, running
from bench.processes import cpu_seconds, memory_bytes
from bench.ratios import summary, table
from services.stack.display import Display

STREAMS = 32
"""The number of streams at the pace of PACED that LiteLLM can just sustain on one core."""
MANY_STREAMS = 256


async def tokens_per_cpu_second(system: System, name: str, port: int, streams: int) -> float:
    """Measure one round: `streams` clients at the same time, each of which reads one paced stream."""
    clients = [await HttpClient.connect(port, system.api_key) for _ in range(streams)]
    before = cpu_seconds(system.pid(name))
    counts = await asyncio.gather(*(client.stream(PACED) for client in clients))
    used = cpu_seconds(system.pid(name)) - before
    for client in clients:
        client.close()
    return sum(chunks for _, chunks in counts) / max(used, 0.01)


async def throughput(system: System, rounds: int) -> dict[str, Any]:
    """Measure both gateways in turns, under the same load."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(await tokens_per_cpu_second(system, "gateway", system.gateway_port, STREAMS))
        theirs.append(await tokens_per_cpu_second(system, "litellm", system.litellm_port, STREAMS))
    return {"vilix": ours, "litellm": theirs, "ratio": [a / b for a, b in zip(ours, theirs, strict=True)]}


async def first_token(system: System, rounds: int, requests: int) -> dict[str, Any]:
    """Measure the first token in turns, on open connections. Returns the p50 of each round, in milliseconds."""
    direct = DirectClient(system.worker)
    ours = await HttpClient.connect(system.gateway_port, system.api_key)
    theirs = await HttpClient.connect(system.litellm_port, system.api_key)
    rows: dict[str, list[float]] = {"direct": [], "vilix": [], "litellm": []}
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(requests):
            times["direct"].append(await direct.first_token(INSTANT))
            times["vilix"].append((await ours.stream(INSTANT))[0])
            times["litellm"].append((await theirs.stream(INSTANT))[0])
        for name, seconds in times.items():
            rows[name].append(statistics.median(seconds) * 1000)
    await direct.close()
    ours.close()
    theirs.close()
    added = [gateway - worker for gateway, worker in zip(rows["vilix"], rows["direct"], strict=True)]
    return {**rows, "added": added}


async def memory(system: System) -> dict[str, Any]:
    """Measure each gateway's memory in MB: Vilix while it serves many streams, LiteLLM after the earlier rounds."""
    clients = [await HttpClient.connect(system.gateway_port, system.api_key) for _ in range(MANY_STREAMS)]
    tasks = [asyncio.create_task(client.stream(PACED)) for client in clients]
    await asyncio.sleep(PACED_TOKENS * PACED_MS / 2000)
    rss, pss = memory_bytes(system.pid("gateway"))
    await asyncio.gather(*tasks)
    for client in clients:
        client.close()
    their_rss, _ = memory_bytes(system.pid("litellm"))
    return {"vilix_rss": rss / 1e6, "vilix_pss": pss / 1e6, "litellm_rss": their_rss / 1e6}


async def measure(*, rounds: int, requests: int) -> dict[str, Any]:
    """Run all measurements and return them by name."""
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), Display(Console(stderr=True))) as system:
            # The first round is slower, and not measured.
            await tokens_per_cpu_second(system, "gateway", system.gateway_port, STREAMS)
            await tokens_per_cpu_second(system, "litellm", system.litellm_port, STREAMS)
            return {
                "throughput": await throughput(system, rounds),
                "first_token_ms": await first_token(system, rounds, requests),
                "memory_mb": await memory(system),
            }


def report(results: dict[str, Any]) -> str:
    """Format the results as a table of medians and ranges over the rounds."""
    cpu, first, used = results["throughput"], results["first_token_ms"], results["memory_mb"]
    pace = f"{STREAMS} streams, a token every {PACED_MS:g} ms"
    rows = [
        [f"Tokens per CPU second, {pace}", summary(cpu["vilix"], digits=0), summary(cpu["litellm"], digits=0)],
        ["Ratio", f"**{summary(cpu['ratio'], digits=1)}**", "1"],
        ["First token, ms, p50, one client", summary(first["vilix"]), summary(first["litellm"])],
        ["Added to a direct gRPC call, ms", f"**{summary(first['added'])}**", ""],
        [
            f"Memory, MB (Vilix with {MANY_STREAMS} streams)",
            f"**{used['vilix_rss']:.0f}** RSS, {used['vilix_pss']:.0f} PSS",
            f"{used['litellm_rss']:.0f} RSS",
        ],
    ]
    return table(["", "Vilix", "LiteLLM"], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds instead of seven")
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    options = parser.parse_args()
    if not LITELLM.exists():
        sys.exit("error: LiteLLM is not installed; run: make .cache/litellm/.installed")
    results = asyncio.run(measure(rounds=2 if options.quick else 7, requests=50 if options.quick else 200))
    print(json.dumps(results, indent=2) if options.json else report(results))


if __name__ == "__main__":
    main()
