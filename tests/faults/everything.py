"""The whole system: chat and embeddings workers, the admin API and the page, with access to its processes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from grpc_health.v1 import health_pb2
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.stack.ports import LOOPBACK, free_ports
from tests.faults.chat_stream import MODEL
from tests.faults.system import START_SECONDS, System, running_system
from tests.support.triton_servers import EMBEDDING_MODEL, Server, serving_embeddings
from tests.support.waits import until
from tests.support.workers import Worker, running_embeddings_worker

ADMIN_TOKEN: Final = "admin-token-of-the-tests"
_FAULT: Final = re.compile(
    r"Traceback \(most recent call last\)|Segmentation fault|Signal \(\d+\) received|panicked at"
)
_CALLER_GONE: Final = "grpc._cython.cygrpc.ExecuteBatchError: "
"""gRPC itself logs this when a caller has disconnected before its error could be sent."""


@dataclass
class Everything:
    """A running system with all its parts."""

    system: System
    embedder: Worker
    embedding_triton: Server
    embedder_metrics: str
    admin_address: str

    @property
    def logs(self) -> dict[str, Path]:
        """The log files, by process."""
        ours = {
            process.name: process.log for process in (self.system.valkey, *self.system.workers, *self.system.gateways)
        }
        return ours | {
            "embedder": self.embedder.log,
            "triton": self.system.triton.log,
            "embedding triton": self.embedding_triton.log,
        }

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by process."""
        ours = {
            process.name: process.pid for process in (self.system.valkey, *self.system.workers, *self.system.gateways)
        }
        return ours | {
            "embedder": self.embedder.process.pid,
            "triton": self.system.triton.process.pid,
            "embedding triton": self.embedding_triton.process.pid,
        }

    @property
    def metrics(self) -> dict[str, str]:
        """The addresses of the metrics, by process."""
        ours = {p.name: f"{LOOPBACK}:{p.metrics_port}" for p in (*self.system.workers, *self.system.gateways)}
        return ours | {"embedder": self.embedder_metrics}

    async def wait_until_ready(self) -> None:
        """Wait until the gateway has found both workers."""

        async def is_ready() -> bool:
            async with self.system.client() as client:
                try:
                    listed = (await client.get("/models")).json()
                except httpx.TransportError:
                    return False
            available = {model["id"] for model in listed.get("data", ()) if model["available"]}
            return available >= {MODEL, EMBEDDING_MODEL, *self.system.more_models}

        await until(is_ready, START_SECONDS, "the gateway has found both workers")

    def tracebacks(self) -> dict[str, str]:
        """The tracebacks in the logs, by process."""
        texts = {name: "\n".join(tracebacks_in(log.read_text(errors="replace"))) for name, log in self.logs.items()}
        return {name: text[:10_000] for name, text in texts.items() if text}

    def dead(self) -> list[str]:
        """The names of the processes that have ended."""
        return [name for name, pid in self.pids.items() if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE]

    def memory(self) -> dict[str, int]:
        """The resident memory in bytes, children included, by process."""
        return {name: _resident(psutil.Process(pid)) for name, pid in self.pids.items()}

    async def embedder_reaches(self, condition: Callable[[pb.ModelStatus], object], seconds: float, what: str) -> None:
        """Wait until `condition` is true for the status that the embeddings worker reports of its model."""
        async with self.embedder.connected() as stub:

            async def is_reached() -> object:
                watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=10)
                status = (await watch.read()).models[0]
                watch.cancel()
                return condition(status)

            await until(is_reached, seconds, what)


@contextlib.asynccontextmanager
async def running_everything(
    directory: Path,
    *,
    slots: int = 256,
    gateway_settings: Mapping[str, str] | None = None,
    worker_settings: Mapping[str, str] | None = None,
    embedder_settings: Mapping[str, str] | None = None,
    more_models: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> AsyncIterator[Everything]:
    """Run all parts. `more_models` are additional models in Triton: engine and arguments by id."""
    (directory / "embeddings").mkdir()
    metrics_port, admin_port = free_ports(2)
    settings = {
        "VILIX_EXPECTED_EMBEDDING_MODELS": EMBEDDING_MODEL,
        "VILIX_ADMIN_PORT": str(admin_port),
        "VILIX_ADMIN_TOKEN": ADMIN_TOKEN,
        **(gateway_settings or {}),
    }
    async with serving_embeddings(directory / "embeddings" / "triton") as triton:
        own = {name.removeprefix("VILIX_").lower(): value for name, value in (embedder_settings or {}).items()}
        own |= {"triton": triton.target, "metrics_port": str(metrics_port)}
        with running_embeddings_worker(directory / "embeddings", **own) as embedder:
            settings["VILIX_EMBEDDINGS_WORKERS"] = embedder.target
            async with running_system(
                directory,
                slots=slots,
                gateway_settings=settings,
                worker_settings=worker_settings,
                more_models=more_models,
            ) as system:
                await embedder.reaches(health_pb2.HealthCheckResponse.SERVING)
                everything = Everything(
                    system, embedder, triton, f"{LOOPBACK}:{metrics_port}", f"{LOOPBACK}:{admin_port}"
                )
                await everything.wait_until_ready()
                yield everything


def _resident(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def tracebacks_in(log: str) -> Iterator[str]:
    """Yield the tracebacks and crashes in a log of JSON or plain lines."""
    lines = [part for line in log.splitlines() for part in _unfolded(line)]
    for number, line in enumerate(lines):
        if not _FAULT.search(line):
            continue
        # The error itself is the first line that is not indented.
        rest = lines[number + 1 :]
        length = next((index for index, each in enumerate(rest) if not each.startswith((" ", "\t"))), len(rest))
        if not (length < len(rest) and rest[length].startswith(_CALLER_GONE)):
            yield "\n".join(lines[max(0, number - 1) : number + length + 2])


def _unfolded(line: str) -> list[str]:
    """Return the message and the lines of the exception in a line of JSON; another line as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return [line]
    if not isinstance(record, dict) or "exception" not in record:
        return [line]
    return [str(record.get("message")), *str(record["exception"]).splitlines()]
