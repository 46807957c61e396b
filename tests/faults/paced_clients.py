"""`python -m tests.faults.paced_clients ADDRESS COUNT SECONDS`: reads many streams at once, at little cost.

Stdin is the request of every stream, and VILIX_API_KEY is the key. The starts are spread evenly over SECONDS. At the
end the process prints one line of JSON for each stream: a `StreamResult`. It parses nothing while streams run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

import orjson

from tests.faults.system import System

READ_SECONDS: Final = 600.0
"""A stream without a byte for this long counts as cut."""


@dataclass
class StreamResult:
    """The result of one stream."""

    status: int = 0
    """The HTTP status; 0 if there was none."""
    errors: list[str] = field(default_factory=list)
    """The error of the response, or the errors in the stream."""
    tokens: int = 0
    """The number of words of the text, each of which is one token of a recording."""
    done: bool = False
    """Whether the stream ended with a finish reason and [DONE]."""
    first: float = 0.0
    """The seconds from the request to the first event."""
    gaps: list[float] = field(default_factory=list)
    """The seconds between consecutive events."""

    @property
    def was_cut(self) -> bool:
        """Whether the connection ended without the end of the stream and without an error."""
        return not self.done and not self.errors


async def run_streams(system: System, request: dict[str, Any], *, count: int, seconds: float) -> list[StreamResult]:
    """Run `count` streams of `request` in a separate process. They start over `seconds`."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.paced_clients", system.gateway.address, str(count), str(seconds)),
        stdin=pipe,
        stdout=pipe,
        env={**os.environ, "VILIX_API_KEY": system.api_key},
    )
    try:
        output, _ = await process.communicate(orjson.dumps(request))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return [StreamResult(**orjson.loads(line)) for line in output.splitlines()]


class _Client(asyncio.Protocol):
    """A client of one stream, which stores the received bytes and their times."""

    def __init__(self, request: bytes) -> None:
        self.received: list[bytes] = []
        self.times: list[float] = []
        self.began = time.monotonic()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        if b"data: {" in data:
            self.times.append(time.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def result(self) -> StreamResult:
        head, _, content = b"".join(self.received).partition(b"\r\n\r\n")
        result = StreamResult(status=int(head.split()[1]) if head else 0)
        if self.times:
            result.first = self.times[0] - self.began
            result.gaps = [later - earlier for earlier, later in pairwise(self.times)]
        if result.status != 200:
            result.errors.append(content.decode(errors="replace"))
            return result
        lines = [line[6:] for line in content.split(b"\n") if line.startswith(b"data: ")]
        chunks = [orjson.loads(line) for line in lines if line != b"[DONE]"]
        result.errors += [str(chunk["error"]["message"]) for chunk in chunks if "error" in chunk]
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        result.tokens = len("".join(choice["delta"].get("content") or "" for choice in choices).split())
        result.done = lines[-1:] == [b"[DONE]"] and any(choice["finish_reason"] for choice in choices)
        return result


async def _run(host: str, port: int, content: bytes, *, count: int, seconds: float) -> list[StreamResult]:
    loop = asyncio.get_running_loop()
    request = (
        b"POST /api/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
        % (os.environ["VILIX_API_KEY"].encode(), len(content))
        + content
    )
    began, clients = loop.time(), []
    for number in range(count):
        await asyncio.sleep(began + seconds * number / count - loop.time())
        _, client = await loop.create_connection(lambda: _Client(request), host, port)
        clients.append(client)
    await asyncio.wait([client.ended for client in clients], timeout=READ_SECONDS)
    return [client.result() for client in clients]


def main() -> None:
    """Run the streams to their ends, and print their results."""
    host, _, port = sys.argv[1].rpartition(":")
    content = sys.stdin.buffer.read()
    for result in asyncio.run(_run(host, int(port), content, count=int(sys.argv[2]), seconds=float(sys.argv[3]))):
        sys.stdout.buffer.write(orjson.dumps(asdict(result)) + b"\n")


if __name__ == "__main__":
    main()
