"""The least that a server in Python can cost: `python -m bench.tokens.bare PORT STEP_MS`.

It answers requests with the bytes that the gateway writes, in the same steps, from one uvloop protocol that checks
nothing and knows no worker. It is also the upstream of the programs that pass HTTP on: of LiteLLM and of other routers.
A stream gets a token per step; a response that is no stream is written at once, and so is every stream with a step of
0. `GET /clients` lists the names of headers of all requests in their order, which tells HTTP clients apart.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

import uvloop

from bench.tokens.response_bytes import ANTHROPIC, OPENAI, STREAM_HEAD, Api, document
from bench.tokens.source import WORDS

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER: Final = re.compile(rb"\r\n([^:\r]+):")
_IS_STREAM: Final = re.compile(rb'"stream" *: *true')
_MOST: Final = re.compile(rb'"max_(?:completion_)?tokens" *: *(\d+)')


class Bare(asyncio.Protocol):
    """One connection."""

    streams: Final[dict[asyncio.Transport, tuple[int, Api]]] = {}
    """The tokens that each running stream has left, and its API."""
    clients: Final[set[str]] = set()
    has_steps = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer a request when all of it has come."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end]
        length = _LENGTH.search(head)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        body, self._received = self._received[end + 4 :], b""
        if head.startswith(b"POST"):
            self.clients.add(b" ".join(_HEADER.findall(head)).decode().lower())
            self._answer(head, body)
        elif head.startswith(b"GET /clients"):
            self._transport.write(document(sorted(self.clients)))
        else:
            # The look of a router.
            self._transport.write(document({}))

    def _answer(self, head: bytes, body: bytes) -> None:
        api = ANTHROPIC if b"/messages" in head[: head.find(b"\r\n")] else OPENAI
        most = _MOST.search(body)
        tokens = int(most[1]) if most else 16
        if not _IS_STREAM.search(body):
            self._transport.write(api.whole(tokens))
        elif self.has_steps:
            self._transport.write(STREAM_HEAD + api.first)
            self.streams[self._transport] = tokens, api
        else:
            events = b"".join(api.events[number % len(WORDS)] for number in range(tokens))
            self._transport.write(STREAM_HEAD + api.first + events + api.last)

    def connection_lost(self, error: Exception | None) -> None:
        """End the stream."""
        self.streams.pop(self._transport, None)


async def serve(port: int, step_ms: float) -> None:
    """Serve until the process is stopped."""
    loop = asyncio.get_running_loop()
    Bare.has_steps = step_ms > 0
    await loop.create_server(Bare, "127.0.0.1", port, backlog=4096)
    if not Bare.has_steps:
        await asyncio.Event().wait()
    next_step, number = loop.time(), 0
    while True:
        next_step = max(next_step + step_ms / 1000, loop.time() - 1)
        await asyncio.sleep(max(0.0, next_step - loop.time()))
        number += 1
        word = number % len(WORDS)
        for transport, (left, api) in list(Bare.streams.items()):
            if left > 1:
                Bare.streams[transport] = left - 1, api
                transport.write(api.events[word])
            else:
                del Bare.streams[transport]
                transport.write(api.events[word] + api.last)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
