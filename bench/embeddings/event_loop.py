"""Measure the longest pause of the gateway's event loop while it encodes a large embeddings response.

The real gateway code sends 2,048 × 1,024 numbers to a real socket, whose reader is another process, while a task that
represents the streams runs whenever it can. The figures are medians of nine runs, beside the same response encoded at
once.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import uvloop
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.dialects.openai_embeddings.request import OpenAIEmbedCall
from services.gateway.dialects.openai_embeddings.response import segments
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import NO_LIMITS
from services.gateway.operations.embed import VectorsReply
from services.gateway.record import RequestRecord

COUNT, DIMENSIONS = 2048, 1024
REPETITIONS: Final = 9
Send = Callable[[dict[str, Any]], Awaitable[None]]
Deliver = Callable[[OpenAIEmbedCall, pb.EmbedResponse, Send], Awaitable[None]]
_READER: Final = (
    "import socket,sys\ns=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\nwhile s.recv(1<<20): pass"
)


async def report() -> None:
    """Measure the gaps and print a table."""
    print(f"## Longest gap of the gateway's event loop while it sends {COUNT} × {DIMENSIONS} numbers, milliseconds\n")
    print("| | encoded in parts | duration of the whole response | encoded at once |\n|---|---|---|---|")
    for name, in_base64 in (("JSON numbers", False), ("base64", True)):
        gap, took = await _median(in_base64, _by_segments)
        at_once, _ = await _median(in_base64, _at_once)
        print(f"| {name} | {gap:.1f} | {took:.0f} | {at_once:.1f} |", flush=True)
    print()


async def _median(in_base64: bool, deliver: Deliver) -> tuple[float, float]:
    measured = [await asyncio.to_thread(uvloop.run, _measure(in_base64, deliver)) for _ in range(REPETITIONS)]
    gaps, times = zip(*measured, strict=True)
    return statistics.median(gaps), statistics.median(times)


async def _by_segments(call: OpenAIEmbedCall, response: pb.EmbedResponse, send: Send) -> None:
    scope = {"type": "http", "headers": [], "state": {"record": RequestRecord("bench", "POST")}}
    exchange = Exchange(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    await VectorsReply(OpenAIEmbeddings(), exchange, call).write(response, NO_LIMITS)


async def _at_once(call: OpenAIEmbedCall, response: pb.EmbedResponse, send: Send) -> None:
    body = b"".join(segments(response, model="m", in_base64=call.in_base64))
    await send({"type": "http.response.body", "body": body})


async def _measure(in_base64: bool, deliver: Deliver) -> tuple[float, float]:
    numbers = np.random.default_rng(1).standard_normal((COUNT, DIMENSIONS), np.float32)
    response = pb.EmbedResponse(
        embeddings=numbers.tobytes(), count=COUNT, dimensions=DIMENSIONS, token_counts=[10] * COUNT
    )
    call = OpenAIEmbedCall(embed=pb.EmbedRequest(model="m"), in_base64=in_base64)
    done: asyncio.Future[tuple[float, float]] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(message: dict[str, Any]) -> None:
            writer.write(message.get("body", b""))
            await writer.drain()

        gaps: list[float] = []
        turns = asyncio.create_task(_take_turns(gaps))
        await asyncio.sleep(0.1)
        gaps.clear()
        began = time.perf_counter()
        await deliver(call, response, send)
        took = time.perf_counter() - began
        await asyncio.sleep(0)
        turns.cancel()
        writer.close()
        done.set_result((max(gaps) * 1000, took * 1000))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader = subprocess.Popen([sys.executable, "-c", _READER, str(port)])  # noqa: ASYNC220  # it returns at once
    try:
        return await done
    finally:
        server.close()
        await asyncio.to_thread(reader.wait, 10)


async def _take_turns(gaps: list[float]) -> None:
    before = time.perf_counter()
    while True:
        await asyncio.sleep(0)
        now = time.perf_counter()
        gaps.append(now - before)
        before = now
