"""All processes on the path of a request."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.tenancy import keys, limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Subject
from services.stack import valkey
from services.stack.ports import LOOPBACK, free_ports
from services.worker.triton_client import TritonClient
from tests.faults.chat_stream import MODEL, read
from tests.faults.process import Process
from tests.faults.recordings import all_recordings
from tests.support.models import smollm2
from tests.support.triton_servers import Server, launched
from tests.support.waits import until
from tests.support.workers import MAX_PEER_CONNECTIONS

IDLE_SECONDS: Final = 2.0
REDIS_SECONDS: Final = 2.0
START_SECONDS: Final = 100.0
"""Long enough for a machine that other tests keep busy."""

CATALOG_ENTRY: Final = """\
id: replay
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
context_length: 100000
engine: {name: replay}
control_tokens_in_prompts: true
descriptions: {en: Recordings.}
"""


@contextlib.asynccontextmanager
async def unharmed_system(system: System) -> AsyncIterator[None]:
    """Check that a good client is served before and after the context, and that no request remains."""
    client = system.client()
    assert (await read(client, "")).is_whole
    yield
    assert (await read(client, "")).is_whole
    await client.aclose()
    await until(system.is_idle)


@dataclass
class System:
    """A running system."""

    triton: Server
    valkey: Process
    workers: list[Process]
    gateways: list[Process]
    key: Key
    api_key: str
    redis_url: str
    redis: Redis
    directory: Path
    engine: TritonClient
    more_models: tuple[str, ...] = ()
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def gateway(self) -> Process:
        return self.gateways[0]

    @property
    def worker(self) -> Process:
        return self.workers[0]

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}"

    def client(self, gateway: Process | None = None, **options: Any) -> httpx.AsyncClient:
        """Return an HTTP client with a key and unlimited connections, which is closed with the system."""
        client = httpx.AsyncClient(
            base_url=f"http://{(gateway or self.gateway).address}/api",
            headers={"Authorization": f"Bearer {self.api_key}"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=60,
            **options,
        )
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.aclose()
        await self.engine.close()
        await self.redis.aclose()

    async def load(self) -> dict[str, Any]:
        """Return the load that the engine reports: in_flight, queued, cancelled_total, …"""
        return dict((await self.engine.describe(MODEL))["load"])

    async def reserved(self) -> int:
        """Return what requests have reserved of the key's limits in Redis: the sum of slots and tokens."""
        limits = (await limits_script.show(self.redis, Subject(self.key, MODEL, UNLIMITED, UNLIMITED))).scopes["key"]
        return limits.slots + limits.reserved

    async def is_idle(self) -> bool:
        """Whether no process has a request in flight, and no request has a reservation."""
        load = await self.load()
        busy = load["in_flight"] + load["queued"] + await self.reserved()
        for process in self.workers:
            busy += await process.metric("vilix_worker_requests_in_flight")
        for process in self.gateways:
            busy += await process.metric("vilix_generations_in_flight")
            busy += await process.metric("vilix_http_requests_in_flight")
        return busy == 0

    async def wait_until_ready(self, gateway: Process | None = None) -> None:
        """Wait until a gateway has found all running workers."""
        running = [worker for worker in self.workers if worker.running is not None and worker.running.poll() is None]
        for worker in running:
            await until(lambda worker=worker: _serves(worker.address), START_SECONDS, f"{worker.name} serves")

        async def is_ready() -> bool:
            gateways = [gateway] if gateway else self.gateways
            has_workers = all([await _found_workers(process) >= len(running) for process in gateways])
            return has_workers and all([await _has_all_models(process) for process in gateways if running])

        try:
            await until(is_ready, START_SECONDS, "the gateway has found its workers")
        except AssertionError as error:
            error.add_note(await self._state())
            raise

    async def _state(self) -> str:
        """Return the models that gateways report and the ends of all logs, for the message of a failure."""
        lines = []
        async with httpx.AsyncClient(timeout=10) as client:
            for process in self.gateways:
                try:
                    lines.append((await client.get(f"http://{process.address}/healthz")).text)
                except httpx.TransportError as error:
                    lines.append(f"{process.name} does not answer: {error!r}")
        for process in (*self.gateways, *self.workers):
            assert process.running is not None
            lines.append(f"{process.name}, exit code {process.running.poll()}: {process.log.read_text()[-1000:]}")
        return "\n".join(lines)


@contextlib.asynccontextmanager
async def running_system(
    directory: Path,
    *,
    slots: int = 256,
    workers: int = 1,
    gateways: int = 1,
    worker_settings: Mapping[str, str] | None = None,
    gateway_settings: Mapping[str, str] | None = None,
    more_models: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> AsyncIterator[System]:
    """Run Valkey, Triton with the engine replay, workers and gateways."""
    recordings = directory / "recordings.json"
    recordings.write_text(json.dumps(all_recordings()))
    (directory / "catalog").mkdir()
    (directory / "catalog" / "replay.yaml").write_text(CATALOG_ENTRY)
    engine = ("replay", {"recordings": str(recordings), "context_length": 100_000, "slots": slots, "max_queued": 2000})
    with contextlib.ExitStack() as stack:
        triton = stack.enter_context(launched(directory / "triton", {MODEL: engine, **(more_models or {})}))
        system = await _start(
            directory,
            triton,
            stack,
            workers=workers,
            gateways=gateways,
            worker_settings=worker_settings or {},
            gateway_settings=gateway_settings or {},
        )
        system.more_models = tuple(more_models or ())
        try:
            await system.wait_until_ready()
            yield system
        finally:
            await system.close()


async def _start(
    directory: Path,
    triton: Server,
    stack: contextlib.ExitStack,
    *,
    workers: int,
    gateways: int,
    worker_settings: Mapping[str, str],
    gateway_settings: Mapping[str, str],
) -> System:
    ports = iter(free_ports(1 + 2 * (workers + gateways)))
    redis_port = next(ports)
    redis_url = f"redis://{LOOPBACK}:{redis_port}/0"

    def process(name: str, argv: list[str], port: int, metrics_port: int, environment: Mapping[str, str]) -> Process:
        started = Process(name, argv, environment, directory / f"{name}.log", port, metrics_port)
        started.start()
        stack.callback(started.stop)
        return started

    redis = process("valkey", valkey.command(port=redis_port, directory=directory / "valkey"), redis_port, 0, {})
    python = [sys.executable, "-m"]
    worker_processes = []
    for number in range(workers):
        port, metrics_port = next(ports), next(ports)
        environment = {
            "VILIX_LISTEN": f"{LOOPBACK}:{port}",
            "VILIX_TRITON": triton.target,
            "VILIX_MODELS": f"{MODEL}={smollm2()}",
            "VILIX_CATALOG_DIR": str(directory / "catalog"),
            "VILIX_STATUS_SECONDS": "0.2",
            "VILIX_METRICS_PORT": str(metrics_port),
            "VILIX_IDLE_SECONDS": str(IDLE_SECONDS),
            "VILIX_MAX_PEER_CONNECTIONS": MAX_PEER_CONNECTIONS,
            **worker_settings,
        }
        argv = [*python, "services.inference"]
        worker_processes.append(process(f"worker{number}", argv, port, metrics_port, environment))
    gateway_processes = []
    for number in range(gateways):
        port, metrics_port = next(ports), next(ports)
        environment = {
            "VILIX_PORT": str(port),
            "VILIX_REDIS_URL": redis_url,
            "VILIX_STATE_REDIS_URL": f"redis://{LOOPBACK}:{redis_port}/1",
            "VILIX_REDIS_TIMEOUT": str(REDIS_SECONDS),
            "VILIX_INFERENCE_WORKERS": ",".join(worker.address for worker in worker_processes),
            "VILIX_EXPECTED_MODELS": MODEL,
            "VILIX_METRICS_PORT": str(metrics_port),
            "VILIX_IDLE_SECONDS": str(IDLE_SECONDS),
            "VILIX_KEEP_ALIVE": "1",
            **gateway_settings,
        }
        argv = [*python, "services.gateway"]
        gateway_processes.append(process(f"gateway{number}", argv, port, metrics_port, environment))
    connection = Redis.from_url(redis_url, decode_responses=True)
    await until(lambda: _answers(connection), START_SECONDS, "valkey answers")
    key, api_key = await keys.create(connection, name="faults")
    engine = TritonClient(triton.target)
    return System(
        triton, redis, worker_processes, gateway_processes, key, api_key, redis_url, connection, directory, engine
    )


async def _answers(connection: Redis) -> bool:
    try:
        return bool(await connection.ping())
    except Exception:  # noqa: BLE001  # any error means that it is not ready yet
        return False


async def _serves(address: str) -> bool:
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        try:
            return bool((await stub.ListModels(pb.ListModelsRequest(), timeout=2)).models)
        except grpc.aio.AioRpcError:
            return False


async def _found_workers(gateway: Process) -> float:
    assert gateway.running is not None
    assert gateway.running.poll() is None, gateway.log.read_text()
    try:
        return await gateway.metric("vilix_workers_serving")
    except httpx.TransportError:
        return -1


async def _has_all_models(gateway: Process) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            models = (await client.get(f"http://{gateway.address}/healthz", timeout=10)).json()["models"]
        except httpx.TransportError:
            # Its metrics are served before its API.
            return False
    return all(models.values())
