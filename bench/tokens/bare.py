"""The least that a server in Python can cost: `python -m bench.tokens.bare PORT STEP_MS TOKENS`.

It answers each request with the events that the gateway writes, in the same steps, from one uvloop protocol that parses
nothing, checks nothing and knows no worker.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop

from bench.tokens.source import WORDS

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_PREFIX: Final = (
    b'data: {"id":"chatcmpl-0123456789abcdef01234567","object":"chat.completion.chunk","created":1764400000,'
    b'"model":"source","choices":[{"index":0,"delta":{'
)
_TAIL: Final = b'},"logprobs":null,"finish_reason":null}]}\n\n'


HEALTHY: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def chunk(data: bytes) -> bytes:
    """Return a chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENTS: Final = [chunk(_PREFIX + b'"content":"' + word.encode() + b'"' + _TAIL) for word in WORDS]
FIRST: Final = chunk(_PREFIX + b'"role":"assistant","content":""' + _TAIL)
LAST: Final = chunk(_PREFIX + b'},"logprobs":null,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n') + b"0\r\n\r\n"


class Bare(asyncio.Protocol):
    """One connection."""

    streams: Final[dict[asyncio.Transport, int]] = {}
    """The tokens that each running stream has left."""
    tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Begin a stream, or answer the look of a router."""
        if data.startswith(b"POST"):
            self._transport.write(HEAD + FIRST)
            self.streams[self._transport] = self.tokens
        elif data.startswith(b"GET"):
            self._transport.write(HEALTHY)

    def connection_lost(self, error: Exception | None) -> None:
        """End the stream."""
        self.streams.pop(self._transport, None)


async def serve(port: int, step_ms: float, tokens: int) -> None:
    """Serve until the process is stopped."""
    loop = asyncio.get_running_loop()
    Bare.tokens = tokens
    await loop.create_server(Bare, "127.0.0.1", port, backlog=4096)
    next_step, number = loop.time(), 0
    while True:
        next_step = max(next_step + step_ms / 1000, loop.time() - 1)
        await asyncio.sleep(max(0.0, next_step - loop.time()))
        number += 1
        event = EVENTS[number % len(EVENTS)]
        for transport, left in list(Bare.streams.items()):
            if left > 1:
                Bare.streams[transport] = left - 1
                transport.write(event)
            else:
                del Bare.streams[transport]
                transport.write(event + LAST)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
