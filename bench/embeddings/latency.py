"""Measure the latency of one short text, alone and while a large request runs."""

from __future__ import annotations

import asyncio
import statistics
import time

import httpx

from bench.embeddings.texts import texts


async def report(client: httpx.AsyncClient, model: str, *, large: int) -> None:
    """Measure both latencies and print a table with the duration of the large request of `large` texts."""
    alone = [await _once(client, model) for _ in range(50)]
    began = time.perf_counter()
    running = asyncio.create_task(client.post("/embeddings", json={"model": model, "input": texts(large)}))
    await asyncio.sleep(0.5)
    under = []
    while not running.done():
        under.append(await _once(client, model))
    (await running).raise_for_status()
    took = time.perf_counter() - began
    print("## One short text, milliseconds\n")
    print("| | p50 | p99 | max | requests |\n|---|---|---|---|---|")
    print(_row("alone", alone))
    print(_row(f"while {large} texts are embedded (in {took:.1f} s)", under))
    print()


async def _once(client: httpx.AsyncClient, model: str) -> float:
    began = time.perf_counter()
    (await client.post("/embeddings", json={"model": model, "input": "سلام دنیا"})).raise_for_status()
    return (time.perf_counter() - began) * 1000


def _row(name: str, milliseconds: list[float]) -> str:
    p99 = statistics.quantiles(milliseconds, n=100)[98] if len(milliseconds) > 1 else milliseconds[0]
    return (
        f"| {name} | {statistics.median(milliseconds):.0f} | {p99:.0f} | {max(milliseconds):.0f} "
        f"| {len(milliseconds)} |"
    )
