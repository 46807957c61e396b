"""Floods of HTTP/2 frames and connections on the workers' gRPC ports, while other callers use the gateway.

The worker survives, its memory stays bounded, callers on other connections are served, and afterwards everything is as
before.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.worker.grpc_server import DEFAULT_LIMITS
from tests.faults.chat_stream import body
from tests.faults.everything import Everything, running_everything
from tests.faults.http2_attacks import ATTACKS, SOURCE
from tests.support.fault_table import record, times
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

pytestmark = [
    pytest.mark.timeout(times(300, 1800)),
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and 127.0.0.2 as the address of another peer"),
]

ATTACK_SECONDS: Final = times(1, 8)
CONNECTIONS: Final = times(4, 16)
IDLE_CONNECTIONS: Final = times(300, 3000)
RECOVERY_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.02
DEFAULTS: Final = {"VILIX_IDLE_SECONDS": "30"}
"""The default, and not the short time of other tests: callers wait longer while the attacker uses one of two cores."""
LONGEST_WAIT_SECONDS: Final = 10.0
SERVED_SHARE: Final = 0.9
"""The least share of other callers' requests that succeed during an attack."""
MOST_GROWTH_BYTES: Final = 512 * 2**20
MORE_ADDRESS_SPACE_BYTES: Final = 4 * 2**30
TARGETS: Final = {"chat": "worker0", "embeddings": "embedder"}


class Others:
    """Other callers: consecutive requests through the gateway, and health checks on a connection of their own."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        path: str,
        content: dict[str, Any],
        worker: psutil.Process,
        channel: grpc.aio.Channel,
    ) -> None:
        """Send `content` to `path` with `client`, and health checks over `channel`; sample the memory of `worker`."""
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._client = client
        self._path = path
        self._content = content
        self._worker = worker
        self.statuses: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.most_memory = 0

    async def ask(self) -> int:
        """Send one request, and return its status."""
        began = time.monotonic()
        status = (await self._client.post(self._path, json=self._content)).status_code
        self.waits.append(time.monotonic() - began)
        self.statuses[status] += 1
        self.most_memory = max(self.most_memory, self._worker.memory_info().rss)
        return status

    async def ask_while(self, attack: asyncio.subprocess.Process) -> None:
        """Send requests until the attack has ended."""
        while attack.returncode is None:
            await self.ask()
            try:
                await self._health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                self.codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                self.codes[error.code().name] += 1
            await asyncio.sleep(PAUSE_SECONDS)


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    limit = {"VILIX_MAX_PEER_CONNECTIONS": str(DEFAULT_LIMITS.peer_connections)}
    own = {"worker_settings": DEFAULTS | limit, "embedder_settings": DEFAULTS | limit}
    async with running_everything(tmp_path_factory.mktemp("floods"), gateway_settings=DEFAULTS, **own) as running:
        for name in TARGETS.values():
            process = psutil.Process(running.pids[name])
            most = process.memory_info().vms + MORE_ADDRESS_SPACE_BYTES
            process.rlimit(resource.RLIMIT_AS, (most, most))
        yield running


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("target", TARGETS)
async def test_other_callers_are_served_during_a_flood(everything: Everything, target: str, attack: str) -> None:
    worker, address = psutil.Process(everything.pids[TARGETS[target]]), address_of(everything, target)
    channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    others = others_of(everything, target, worker, channel)
    assert await others.ask() == 200
    before = worker.memory_info().rss
    attacking = await begin(attack, address)
    try:
        await others.ask_while(attacking)
        written = (await attacking.communicate())[0].decode().strip()
    finally:
        await end(attacking)
        await channel.close()
    during, waits = +others.statuses, others.waits[:]
    ended = time.monotonic()
    assert everything.dead() == []

    async def is_served() -> bool:
        return await others.ask() == 200

    await until(is_served, RECOVERY_SECONDS, "others are served after the attack")
    recovered = time.monotonic() - ended
    await until(lambda: not connections_of_peer(worker, address), RECOVERY_SECONDS, "the attacker's connections end")
    await until(everything.system.is_idle, what="nothing is in flight")
    growth, kept = others.most_memory - before, worker.memory_info().rss - before
    answered = f"{during[200]} of {during.total()} requests, {others.codes['OK']} of {others.codes.total()} calls"
    measured = (
        f"{answered}; p50 {statistics.median(waits):.2f} s, max {max(waits):.1f} s; "
        f"then served after {recovered:.1f} s; "
        f"{growth / 1e6:+.0f} MB, {kept / 1e6:+.0f} MB afterwards; {written} written"
    )
    assert growth < MOST_GROWTH_BYTES, measured
    assert during[200] >= SERVED_SHARE * during.total(), (during, measured)
    assert others.codes["OK"] >= SERVED_SHARE * others.codes.total(), (others.codes, measured)
    record(
        f"Flood of the gRPC port of a worker for {target}: {attack.replace('_', ' ')}",
        f"it survives; {SERVED_SHARE:.0%} of other callers' requests succeed, each within {LONGEST_WAIT_SECONDS:g} s; "
        f"less than {MOST_GROWTH_BYTES >> 20} MiB more memory",
        measured,
        met=max(waits) < LONGEST_WAIT_SECONDS,
    )


@pytest.mark.parametrize("target", TARGETS)
async def test_one_peer_cannot_use_up_all_connections(everything: Everything, target: str) -> None:
    worker, address = psutil.Process(everything.pids[TARGETS[target]]), address_of(everything, target)
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as sockets:
        for _ in range(3 * DEFAULT_LIMITS.peer_connections):
            sockets.enter_context(socket.create_connection((host, int(port)), source_address=(SOURCE, 0)))
        await until(
            lambda: len(connections_of_peer(worker, address)) == DEFAULT_LIMITS.peer_connections,
            what="the peer has only the allowed number of connections",
        )
        # Another peer, which has no connection yet, is served.
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
    await until(lambda: not connections_of_peer(worker, address), what="the peer's connections have ended")


def address_of(everything: Everything, target: str) -> str:
    """Return the address of a worker's gRPC port."""
    return everything.system.worker.address if target == "chat" else everything.embedder.target


def others_of(everything: Everything, target: str, worker: psutil.Process, channel: grpc.aio.Channel) -> Others:
    """Return other callers of a worker."""
    client = everything.system.client()
    if target == "chat":
        return Others(client, "/chat/completions", body(stream=False), worker, channel)
    return Others(client, "/embeddings", {"model": EMBEDDING_MODEL, "input": "good"}, worker, channel)


async def begin(attack: str, address: str) -> asyncio.subprocess.Process:
    """Start an attack."""
    connections = IDLE_CONNECTIONS if attack == "idle_connections" else CONNECTIONS
    arguments = ("-m", "tests.faults.http2_attacks", attack, address, str(ATTACK_SECONDS), str(connections))
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE)


async def end(attacking: asyncio.subprocess.Process) -> None:
    """Stop an attack if it is still running."""
    if attacking.returncode is None:
        attacking.kill()
        await attacking.wait()


def connections_of_peer(worker: psutil.Process, address: str) -> list[Any]:
    """Return the attacker's connections to a port of a worker."""
    port = int(address.rpartition(":")[2])
    return [
        one
        for one in worker.net_connections("inet")
        if one.laddr.port == port and one.raddr and one.raddr.ip.endswith(SOURCE) and one.status == "ESTABLISHED"
    ]
