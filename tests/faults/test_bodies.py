"""Large, unfinished, slow and concurrent request bodies on the public port and the admin port."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from typing import Final

import httpx
import orjson
import psutil
import pytest

from services.gateway.edge.admin_guard import MAX_BODY_BYTES
from services.gateway.tenancy import keys
from services.stack.ports import LOOPBACK, free_ports
from tests.faults.chat_stream import body, read
from tests.faults.connection import Connection
from tests.faults.process import Process
from tests.faults.system import System, running_system, unharmed_system
from tests.support.fault_table import milliseconds, record, times
from tests.support.waits import until

MEBIBYTE: Final = 2**20
BUDGET, KEY_BUDGET = 100 * MEBIBYTE, 40 * MEBIBYTE
LARGE: Final = 19 * MEBIBYTE
BODY_SECONDS, HEADER_SECONDS = 12.0, 2.0
ADMIN_TOKEN: Final = "admin-token-of-the-tests"
ADMIN_PORT: Final = free_ports(1)[0]
ADMIN: Final = f"{LOOPBACK}:{ADMIN_PORT}"
SETTINGS: Final = {
    "VILIX_BODIES_BYTES": str(BUDGET),
    "VILIX_KEY_BODIES_BYTES": str(KEY_BUDGET),
    "VILIX_BODY_SECONDS": f"{BODY_SECONDS}",
    "VILIX_HEADER_SECONDS": f"{HEADER_SECONDS}",
    "VILIX_ADMIN_PORT": str(ADMIN_PORT),
    "VILIX_ADMIN_TOKEN": ADMIN_TOKEN,
}
HEAD: Final = b"POST /api/chat/completions HTTP/1.1\r\nHost: test\r\n"
CREATE: Final = b"POST /admin/v1/keys HTTP/1.1\r\nHost: test\r\n"
# The memory of connections' buffers, which is not counted, and of the part of a body that is parsed at a time.
OVERHEAD: Final = 80e6


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("bodies"), gateway_settings=SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
async def is_unharmed(system: System) -> AsyncIterator[None]:
    """Check that a good client is served before and after a test, and that no body is counted afterwards."""
    async with unharmed_system(system):
        yield
    await until(lambda: _is_counted(system, 0), what="no body is counted")


async def test_unfinished_bodies_do_not_fill_the_memory(system: System) -> None:
    count = 60
    before = _memory(system.gateway)
    attacker = await _key(system, "holds back")
    highest = _Highest(system.gateway)
    async with highest:
        sending = [asyncio.create_task(_send(system, attacker, LARGE, held_back=1)) for _ in range(count)]
        # Bodies beyond the key's budget are rejected; those within it wait for their last byte.
        rejected = [response for response in await asyncio.gather(*sending) if response]
    grown = highest.bytes - before
    assert len(rejected) == count
    assert all(response.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 408 ")) for response in rejected)
    of_budget = [response for response in rejected if b" 503 " in response]
    assert len(of_budget) >= count - KEY_BUDGET // LARGE
    assert all(b"retry-after: " in response.lower() for response in of_budget)
    assert all(b"connection: close" in response.lower() for response in rejected)
    assert grown < KEY_BUDGET + OVERHEAD
    kept = await _kept_memory(system, before)
    record(
        f"{count} bodies of 19 MiB of one key, each without its last byte, {KEY_BUDGET // MEBIBYTE} MiB allowed",
        "503 with Retry-After beyond the limit; memory is bounded and released",
        f"{len(of_budget)} × 503, {len(rejected) - len(of_budget)} × 408; at most {grown / 1e6:+.0f} MB, "
        f"{kept / 1e6:+.0f} MB afterwards",
        met=kept < 50e6,
    )


async def test_complete_bodies_do_not_fill_the_memory(system: System) -> None:
    count = times(12, 60)
    before = _memory(system.gateway)
    attacker = await _key(system, "sends much")
    highest = _Highest(system.gateway)
    async with highest:
        responses = await asyncio.gather(*(_send(system, attacker, LARGE) for _ in range(count)))
    grown = highest.bytes - before
    assert {response[9:12] for response in responses} <= {b"400", b"503"}
    assert b"400" in {response[9:12] for response in responses}
    # While a body is parsed, it exists as bytes, as text, and as parsed values.
    assert grown < KEY_BUDGET * 3 + OVERHEAD
    kept = await _kept_memory(system, before)
    record(
        f"{count} whole bodies of 19 MiB of one key at a time",
        "a response or 503; memory is bounded and released",
        f"at most {grown / 1e6:+.0f} MB, {kept / 1e6:+.0f} MB afterwards",
        met=kept < 50e6,
    )


async def test_slow_senders_do_not_block_the_budget_for_other_keys(system: System) -> None:
    before = await system.gateway.metric("vilix_http_bodies_rejected_total")
    attackers = [await _key(system, f"is slow {number}") for number in range(3)]
    slow = [asyncio.create_task(_send(system, key, LARGE, held_back=1)) for key in attackers for _ in range(2)]
    await until(lambda: _is_counted(system, 4 * LARGE), what="the budget is used up")
    began = time.monotonic()
    response = await _send(system, system.api_key, LARGE)
    waited = time.monotonic() - began
    assert response.startswith(b"HTTP/1.1 400 "), response
    assert waited < BODY_SECONDS
    assert await system.gateway.metric("vilix_http_bodies_rejected_total") > before
    responses = await asyncio.gather(*slow)
    assert {response[9:12] for response in responses} <= {b"408", b"503"}
    record(
        "Six unfinished bodies of 19 MiB of three keys use up the whole budget",
        "another key's body of 19 MiB is accepted long before they time out",
        f"after {waited:.1f} s",
        met=waited < BODY_SECONDS / 2,
    )


async def test_small_bodies_are_accepted_while_large_ones_use_up_the_budget(system: System) -> None:
    attackers = [await _key(system, f"is large {number}") for number in range(3)]
    slow = [asyncio.create_task(_send(system, key, LARGE, held_back=1)) for key in attackers for _ in range(2)]
    await until(lambda: _is_counted(system, 4 * LARGE), what="the budget is used up")
    client = system.client()
    for _ in range(20):
        async with asyncio.timeout(5):
            assert (await read(client, "")).is_whole
    await client.aclose()
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_body_is_counted_until_a_worker_has_the_request(system: System) -> None:
    text = "one " * 20_000
    client = system.client()
    stream = client.stream("POST", "/chat/completions", json=body("LONG", max_tokens=500, user=text))
    async with stream as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        while "content" not in await anext(lines):
            pass
        assert await _is_counted(system, 0), "a running response keeps the body of its request"
    await client.aclose()


async def test_the_admin_api_does_not_read_bodies_without_its_credential(system: System) -> None:
    size = times(100, 400) * MEBIBYTE
    before = _memory(system.gateway)
    highest = _Highest(system.gateway)
    waited: list[float] = []
    watching = asyncio.create_task(_watch_health(system, waited))
    await until(lambda: bool(waited))
    content = _ones(size)
    async with highest:
        began = time.monotonic()
        responses = await asyncio.gather(
            *(_exchange(ADMIN, CREATE + b"Content-Length: %d\r\n\r\n" % size, content, insist=True) for _ in range(3))
        )
        answered = time.monotonic() - began
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    for response in responses:
        assert response.startswith(b"HTTP/1.1 401 "), response
        assert b"connection: close" in response.lower()
    assert highest.bytes - before < 30e6
    assert max(waited) < 5
    record(
        f"Three bodies of {size // MEBIBYTE} MiB for the admin API without its credential",
        "401 before they are read; memory and the public port are not affected",
        f"401 after {answered:.1f} s at most; {(highest.bytes - before) / 1e6:+.1f} MB; /healthz meanwhile: "
        f"{milliseconds(waited)}",
        met=max(waited) < 1,
    )


async def test_a_wrong_admin_token_costs_little_processor_time(system: System) -> None:
    count = times(200, 2000)
    process = psutil.Process(system.gateway.pid)
    async with httpx.AsyncClient(base_url=f"http://{ADMIN}", headers={"Authorization": "Bearer wrong"}) as client:
        await client.get("/admin/v1/keys")
        before = sum(process.cpu_times()[:2])
        for _ in range(count):
            assert (await client.post("/admin/v1/keys", content=b"[" * 60_000)).status_code == 401
        cost = (sum(process.cpu_times()[:2]) - before) / count
    assert cost < 0.1
    record(
        f"{count} requests with a wrong admin token and 60 kB, one connection each",
        "each costs less than 1 ms of the gateway's processor time",
        f"{cost * 1000:.2f} ms",
        met=cost < 0.001,
    )


@pytest.mark.parametrize("announced", [True, False])
async def test_the_admin_api_limits_the_size_of_bodies(system: System, announced: bool) -> None:
    credential = b"Authorization: Bearer " + ADMIN_TOKEN.encode() + b"\r\n"
    size = MAX_BODY_BYTES + 1
    length = b"Content-Length: %d\r\n\r\n" % size if announced else b"Transfer-Encoding: chunked\r\n\r\n"
    content = b" " * size if announced else b"%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
    response = await _exchange(ADMIN, CREATE + credential + length, content)
    assert response.startswith(b"HTTP/1.1 413 "), response
    fits = orjson.dumps({"name": f"padded {announced}"}).ljust(MAX_BODY_BYTES)
    head = CREATE + credential + b"Connection: close\r\nContent-Type: application/json\r\n"
    response = await _exchange(ADMIN, head + b"Content-Length: %d\r\n\r\n" % len(fits), fits)
    assert response.startswith(b"HTTP/1.1 201 "), response


async def test_the_admin_port_has_the_limits_of_the_public_one(system: System) -> None:
    assert (await _exchange(ADMIN, CREATE + b"X-Long: " + b"a" * 4 * MEBIBYTE)).startswith(b"HTTP/1.1 431 ")
    assert (await _exchange(ADMIN, b"GET /admin/v1/keys HT")).startswith(b"HTTP/1.1 408 ")
    assert await _exchange(ADMIN, b"") == b"", "the connection is closed after the deadline for headers"
    hogs = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            hogs.append(await Connection.open(ADMIN))
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://{ADMIN}", headers=headers) as client:
        assert (await client.get("/admin/v1/keys")).status_code == 200
    for hog in hogs:
        hog.disconnect()


class _Highest:
    """The highest resident memory of a process while the context is open."""

    def __init__(self, process: Process) -> None:
        self.bytes = 0
        self._process = process
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._sample())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        self.bytes = max(self.bytes, _memory(self._process))

    async def _sample(self) -> None:
        while True:
            self.bytes = max(self.bytes, _memory(self._process))
            await asyncio.sleep(0.01)


async def _send(system: System, api_key: str, size: int, *, held_back: int = 0) -> bytes:
    """Send a body of `size` bytes without the last `held_back` ones, and return the response."""
    head = HEAD + b"Connection: close\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (
        api_key.encode(),
        size,
    )
    return await _exchange(system.gateway.address, head, memoryview(_document(size))[: size - held_back])


@functools.cache
def _document(size: int) -> bytes:
    """Return a JSON document of `size` bytes that is not a valid request."""
    return b'{"model": "replay", "nothing": "'.ljust(size - 2, b"a") + b'"}'


async def _exchange(address: str, head: bytes, content: bytes | memoryview = b"", *, insist: bool = False) -> bytes:
    """Return all bytes received until the connection is closed. With `insist`, all of `content` is sent in any case."""
    connection = await Connection.open(address)
    sending = asyncio.create_task(_write(connection, head, content))
    response = bytearray()
    try:
        async with asyncio.timeout(60):
            while piece := await connection.reader.read(65536):
                response += piece
            if insist:
                await sending
    except OSError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.disconnect()
    return bytes(response)


async def _write(connection: Connection, head: bytes, content: bytes | memoryview) -> None:
    connection.writer.write(head)
    for start in range(0, len(content), 65536):
        connection.writer.write(content[start : start + 65536])
        await connection.writer.drain()


def _ones(size: int) -> bytes:
    return b'{"name":"x","owner":[' + b"1," * (size // 2)


async def _watch_health(system: System, waited: list[float]) -> None:
    async with httpx.AsyncClient(base_url=system.url, timeout=30) as client:
        while True:
            began = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            waited.append(time.monotonic() - began)
            await asyncio.sleep(0.01)


async def _kept_memory(system: System, before: int) -> int:
    """Return by how much a gateway's memory exceeds `before` once it has been idle for a while."""
    await until(system.is_idle)
    await until(lambda: _is_counted(system, 0), what="no body is counted")
    with contextlib.suppress(AssertionError):
        await until(lambda: _memory(system.gateway) - before < 50e6, 10)
    return _memory(system.gateway) - before


async def _key(system: System, name: str) -> str:
    _, secret = await keys.create(system.redis, name=f"{name} {time.monotonic()}")
    return secret


async def _is_counted(system: System, least: int) -> bool:
    counted = await system.gateway.metric("vilix_http_body_bytes")
    return counted >= least if least else counted == 0


def _memory(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)
