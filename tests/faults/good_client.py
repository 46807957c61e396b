"""`python -m tests.faults.good_client ADDRESS`: sends one short chat request after the other, and prints their latency.

Stdin is the request, and VILIX_API_KEY is the key. The latency is the time in seconds to the first event of a response.
This is a process of its own, so that the work of the test itself does not delay it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import orjson

from tests.faults.chat_stream import body
from tests.faults.system import System
from tests.support.waits import until

if TYPE_CHECKING:
    from asyncio.subprocess import Process

PAUSE_SECONDS = 0.005


class GoodClient:
    """The measurements of the process so far."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        """The seconds to the first event of each chat."""

    async def more(self, count: int) -> list[float]:
        """Wait for `count` further chats, and return their latencies."""
        first = len(self.waited)
        await until(lambda: len(self.waited) >= first + count, 60, "a good client is served")
        return self.waited[first:]

    async def follow(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.waited.append(float(line))


@contextlib.asynccontextmanager
async def good_client(system: System) -> AsyncIterator[GoodClient]:
    """Run a client that sends requests until the context ends."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.good_client", system.gateway.address),
        stdin=pipe,
        stdout=pipe,
        env={**os.environ, "VILIX_API_KEY": system.api_key},
    )
    client = GoodClient()
    following = asyncio.create_task(client.follow(process))
    try:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(body()))
        process.stdin.write_eof()
        yield client
        assert process.returncode is None, "the good client was not served"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await following


def main() -> None:
    """Send requests until the process is killed or a request fails."""
    headers = {"Authorization": f"Bearer {os.environ['VILIX_API_KEY']}", "Content-Type": "application/json"}
    content = sys.stdin.buffer.read()
    connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
    while True:
        began = time.perf_counter()
        connection.request("POST", "/api/chat/completions", content, headers)
        response = connection.getresponse()
        first = next(line for line in response if line.startswith(b"data: "))
        waited = time.perf_counter() - began
        assert b'"error"' not in first, first
        assert response.read().endswith(b"data: [DONE]\n\n")
        print(waited, flush=True)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
