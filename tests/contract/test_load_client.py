"""The benchmark's load client counts what a server sends, however the network cuts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bench.tokens.bare import Bare
from bench.tokens.load_client import CHAT, MESSAGES, Load, compile_load, write_request
from bench.tokens.response_bytes import OPENAI, STREAM_HEAD
from tests.support.system_packages import require

Report = dict[str, Any]
TOKENS = 30


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("cc", package="gcc")
    return compile_load(tmp_path_factory.mktemp("load"))


class Cut(asyncio.Protocol):
    """Answers with a stream whose bytes come in small pieces."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._task = asyncio.ensure_future(self._answer())

    async def _answer(self) -> None:
        body = OPENAI.first + OPENAI.events[0] * TOKENS + OPENAI.last
        self._transport.write(STREAM_HEAD)
        for start in range(0, len(body), 97):
            await asyncio.sleep(0)
            self._transport.write(body[start : start + 97])


class Failing(Cut):
    """Answers with an error."""

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[type[asyncio.Protocol]], Any]]:
    servers = []

    async def start(protocol: type[asyncio.Protocol]) -> int:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()


async def run(program: Path, port: int, *, path: str = CHAT, stream: bool = True, load: Load) -> Report:
    request = write_request(program.parent, "key", {"stream": stream, "max_tokens": TOKENS}, path=path)
    client = await asyncio.create_subprocess_exec(*load.argv(program, port, request), stdout=asyncio.subprocess.PIPE)
    output, _ = await client.communicate()
    assert client.returncode == 0
    report: Report = json.loads(output)
    return report


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_the_tokens_of_streams_are_counted(program: Path, serve: Any, path: str) -> None:
    Bare.has_steps = False
    report = await run(program, await serve(Bare), path=path, load=Load(2, 6, window=(0, 60)))
    assert (report["requests"], report["errors"], report["tokens"]) == (6, 0, 6 * TOKENS)
    assert report["texts"] == [TOKENS] * 6
    assert sum(report["window_tokens"]) == 6 * TOKENS
    assert all(
        0 < first <= last <= total
        for first, last, total in zip(report["first_ms"], report["last_ms"], report["total_ms"], strict=True)
    )


async def test_a_response_that_is_no_stream_is_one_event(program: Path, serve: Any) -> None:
    report = await run(program, await serve(Bare), stream=False, load=Load(1, 3))
    assert (report["requests"], report["errors"], report["events"]) == (3, 0, 3)


async def test_an_event_may_come_in_pieces(program: Path, serve: Any) -> None:
    report = await run(program, await serve(Cut), load=Load(2, 4))
    assert (report["tokens"], report["events"], report["errors"]) == (4 * TOKENS, 4 * (TOKENS + 2), 0)


async def test_an_error_is_counted_and_the_next_request_goes_on(program: Path, serve: Any) -> None:
    report = await run(program, await serve(Failing), load=Load(1, 3))
    assert (report["requests"], report["errors"]) == (3, 3)
