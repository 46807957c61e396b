"""All processes on the path of a request, each of which a test can stop, freeze or kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
import httpx
import orjson
import psutil
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.tenancy import keys, limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Subject
from services.inference.model.tokenizer import ModelTokenizer
from services.stack import valkey
from services.stack.ports import LOOPBACK, free_ports
from services.worker.triton_client import TritonClient
from tests.support.models import smollm2
from tests.support.repository import ROOT
from tests.support.triton_servers import Server, launched
from tests.support.waits import until
from tests.support.workers import MAX_PEER_CONNECTIONS

MODEL: Final = "replay"
IDLE_SECONDS: Final = 2.0
REDIS_SECONDS: Final = 2.0
START_SECONDS: Final = 60.0
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

PREFILL, SLOW, LONG, STEADY, BURST, STALL = "PREFILL", "SLOW", "LONG", "STEADY", "BURST", "STALL"
"""Words in messages that cause half a minute of prefill, two seconds of prefill, an endless response, six seconds of
tokens, very many tokens, and an engine whose thread freezes after five tokens."""
PACED: Final = "PACED"
"""A word in messages that cause 200 tokens, two per second."""


@contextlib.asynccontextmanager
async def unharmed_system(system: System) -> AsyncIterator[None]:
    """Check that a good client is served before and after the context, and that no request remains."""
    client = system.client()
    assert (await read(client, "")).is_whole
    yield
    assert (await read(client, "")).is_whole
    await client.aclose()
    await until(system.is_idle)


@contextlib.contextmanager
def frozen_process(pid: int) -> Iterator[None]:
    """Freeze the process with this id until the context ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Process:
    """One process of the system."""

    name: str
    argv: list[str]
    environment: Mapping[str, str]
    log: Path
    port: int
    metrics_port: int = 0
    running: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        assert self.running is not None
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGKILL)
        self.running.wait(20)

    @contextlib.contextmanager
    def frozen(self) -> Any:
        """Freeze the process until the context ends."""
        with frozen_process(self.pid):
            yield

    async def exit_code(self, seconds: float = 30.0) -> int:
        """Wait until the process ends, and return its exit code."""
        assert self.running is not None
        return await asyncio.to_thread(self.running.wait, seconds)

    async def metrics(self) -> dict[str, float]:
        """Return its metrics, by name and labels as in the text format."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{LOOPBACK}:{self.metrics_port}/metrics", timeout=10)).text
        values = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return values

    async def residue(self) -> dict[str, float]:
        """Return the numbers of its threads and of its event loop's tasks, which requests must not leave behind."""
        return {"threads": psutil.Process(self.pid).num_threads(), "tasks": await self.metric("vilix_event_loop_tasks")}

    async def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        return sum(value for key, value in (await self.metrics()).items() if key.partition("{")[0] == name)


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


def body(word: str = "", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    """Return the body of a request that is answered with the recording of `word`."""
    content = f"{word} please" if word else "Hello"
    return {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": content}], **fields}


@dataclass
class Stream:
    """The events of a streamed response."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in self.chunks if c.get("choices"))

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [chunk["error"] for chunk in self.chunks if "error" in chunk]

    @property
    def finish_reasons(self) -> list[str]:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def is_whole(self) -> bool:
        return self.done and not self.errors and self.finish_reasons == ["stop"]

    def add(self, line: str) -> None:
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            self.chunks.append(orjson.loads(line[6:]))


async def read(client: httpx.AsyncClient, word: str, *, begun: asyncio.Event | None = None, **fields: Any) -> Stream:
    """Read a streamed response to its end. `begun` is set when its first token arrives."""
    stream = Stream()
    async with client.stream("POST", "/chat/completions", json=body(word, **fields)) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        async for line in response.aiter_lines():
            stream.add(line)
            if begun is not None and stream.text:
                begun.set()
    return stream


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
    recordings.write_text(json.dumps(_recordings()))
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
        stack.callback(_stop, started)
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


def _recordings() -> list[dict[str, Any]]:
    tokenizer = ModelTokenizer(smollm2())
    words = tokenizer.encode(" one two three four five six seven eight nine ten")

    def recording(name: str, count: int, **fields: Any) -> dict[str, Any]:
        ids = [words[i % len(words)] for i in range(count)]
        return {"name": name, "prompt_contains": tokenizer.encode(name), "token_ids": [*ids, 2], **fields}

    return [
        recording(PREFILL, 5, start_ms=30_000),
        recording(SLOW, 5, start_ms=2_000),
        recording(LONG, 60_000, interval_ms=20),
        recording(STEADY, 150, interval_ms=40),
        recording(BURST, 60_000, interval_ms=0.1, tokens_per_response=100),
        recording(PACED, 200, interval_ms=500),
        recording(STALL, 5, interval_ms=1, stall_s=600),
        {**recording("any", 5, interval_ms=1), "prompt_contains": []},
    ]


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
        models = (await client.get(f"http://{gateway.address}/healthz", timeout=10)).json()["models"]
    return all(models.values())


def _stop(process: Process) -> None:
    if process.running is None or process.running.poll() is not None:
        return
    process.signal(signal.SIGCONT)
    process.signal(signal.SIGTERM)
    try:
        process.running.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()


@dataclass
class Connection:
    """An HTTP connection on which a test reads and writes bytes itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    opened: ClassVar[list[Connection]] = []
    """All open connections, which are closed at the end of a test."""

    @classmethod
    async def open(cls, address: str, *, receive_buffer: int | None = None) -> Connection:
        """Connect to HOST:PORT. `receive_buffer` is the size in bytes of the kernel's receive buffer."""
        host, _, port = address.rpartition(":")
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        connection = cls(*await asyncio.open_connection(sock=raw))
        cls.opened.append(connection)
        return connection

    @classmethod
    async def disconnect_all(cls) -> None:
        """Close all open connections, and wait until they are closed."""
        for connection in cls.opened:
            connection.disconnect()
        await asyncio.gather(*(connection.writer.wait_closed() for connection in cls.opened), return_exceptions=True)
        cls.opened.clear()

    @classmethod
    async def ask(cls, system: System, request: Mapping[str, Any], *, receive_buffer: int | None = None) -> Connection:
        """Send a chat request without waiting for its response."""
        connection = await cls.open(system.gateway.address, receive_buffer=receive_buffer)
        content = orjson.dumps(request)
        connection.writer.write(
            b"POST /api/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            % (system.api_key.encode(), len(content))
            + content
        )
        return connection

    async def until(self, text: bytes) -> None:
        """Read until `text` has arrived."""
        async with asyncio.timeout(30):
            await self.reader.readuntil(text)

    def disconnect(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
