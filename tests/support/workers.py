"""Real worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vilix.embeddings.v1.embeddings_service_pb2_grpc import EmbeddingsServiceStub
from vilix.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.embeddings.servicer import SERVICE as EMBEDDINGS
from services.inference.servicer import SERVICE as INFERENCE
from services.stack.ports import free_ports
from tests.support.repository import ROOT
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

START_SECONDS = 100
MAX_PEER_CONNECTIONS = "1000"
"""For VILIX_MAX_PEER_CONNECTIONS. A test connects often, always from the same address, and the connections of a closed
channel stay open until Python's garbage collector finds its calls.
"""
_CHANNEL = [("grpc.use_local_subchannel_pool", 1)]
_STUBS: Mapping[str, Callable[[grpc.aio.Channel], Any]] = {
    EMBEDDINGS: EmbeddingsServiceStub,
    INFERENCE: InferenceServiceStub,
}


@dataclass(frozen=True)
class Worker:
    """A worker process."""

    process: subprocess.Popen[bytes]
    service: str
    """The full name of the gRPC service."""
    target: str
    log: Path

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """Yield a stub of the worker's service on a new connection."""
        async with grpc.aio.insecure_channel(self.target, _CHANNEL) as channel:
            yield _STUBS[self.service](channel)

    async def health(self, service: str | None = None) -> int | None:
        """Return the health status of a service, by default the worker's own; None for an unknown one or no answer."""
        async with grpc.aio.insecure_channel(self.target, _CHANNEL) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=self.service if service is None else service)
            try:
                return int((await stub.Check(request, timeout=5)).status)
            except grpc.aio.AioRpcError:
                return None

    async def reaches(self, status: int, *models: str) -> None:
        """Wait for a health status of the service, or of each of `models`."""
        names = [f"{self.service}/{model}" for model in models] or [self.service]

        async def is_reached() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return all([await self.health(name) == status for name in names])

        await until(is_reached, START_SECONDS, f"the health of {', '.join(names)} is {status}")


@contextlib.contextmanager
def running_inference_worker(directory: Path, **settings: str) -> Iterator[Worker]:
    """Start an inference worker with these VILIX_ settings, and stop it. Its log is in `directory`."""
    with _running("inference", INFERENCE, directory, settings) as worker:
        yield worker


@contextlib.contextmanager
def running_embeddings_worker(directory: Path, **settings: str) -> Iterator[Worker]:
    """Start an embeddings worker with these VILIX_ settings, and stop it. Its log is in `directory`."""
    settings = {"status_seconds": "0.2", "models": EMBEDDING_MODEL, **settings}
    with _running("embeddings", EMBEDDINGS, directory, settings) as worker:
        yield worker


@contextlib.contextmanager
def _running(package: str, service: str, directory: Path, settings: Mapping[str, str]) -> Iterator[Worker]:
    (port,) = free_ports(1)
    target = f"127.0.0.1:{port}"
    settings = {"listen": target, "max_peer_connections": MAX_PEER_CONNECTIONS, **settings}
    environment = {f"VILIX_{name.upper()}": value for name, value in settings.items()}
    log = directory / f"{package}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{package}"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield Worker(process, service, target, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
