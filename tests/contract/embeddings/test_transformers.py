"""The transformers engine in a real Triton, against transformers' own forward pass."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray
from tokenizers import Tokenizer
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings.model_repository import write_model
from tests.contract.embeddings import tiny_models
from tests.contract.embeddings.test_embed import rejection, vectors
from tests.contract.embeddings.tiny_models import BERT, DIMENSIONS, MAX_TOKENS, QWEN3_LEFT, QWEN3_RIGHT, TEXTS
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.repository import ROOT
from tests.support.triton_servers import launched
from tests.support.workers import running_embeddings_worker

pytestmark = [pytest.mark.timeout(INSTALL_SECONDS + 120), pytest.mark.environment]
SMOKE_SECONDS = 300
MODELS = (QWEN3_RIGHT, QWEN3_LEFT, BERT)
CATALOG_ENTRY = f"""\
id: {{name}}
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
dimensions: {DIMENSIONS}
shortens: true
max_input_tokens: 512
engine: {{{{name: transformers}}}}
default_input_type: passage
token_input: model
end_token: {tiny_models.END}
batch: {{{{texts: 8, tokens: 512}}}}
descriptions: {{{{en: Random numbers.}}}}
"""

LOST_GPU = """
import sys

import torch

from services.embeddings.triton_backend.engines.transformers import TransformersEncoder


def synchronize(device):
    raise RuntimeError("CUDA error: an illegal memory access was encountered\\nCUDA kernel errors might be …")


engine = TransformersEncoder(model=sys.argv[1], device="cpu")
print(engine.description.dimensions)
engine._device, torch.cuda.synchronize = torch.device("cuda"), synchronize
try:
    engine.description
except Exception as error:
    print(error)
"""
"""A program with a GPU that has failed for good, by a stand-in for CUDA's check."""


@pytest.fixture(scope="module")
def python() -> Path:
    return python_of("transformers")


@pytest.fixture(scope="module")
def models(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    subprocess.run([python, tiny_models.__file__, directory], check=True, capture_output=True, timeout=100)
    return directory


@pytest.fixture(scope="module")
async def stub(python: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    directory = tmp_path_factory.mktemp("transformers")
    for name in MODELS:
        arguments: dict[str, Any] = {"model": str(models / name), "threads": 1}
        if name == QWEN3_LEFT:
            # The texts are computed in several groups.
            arguments["batch_tokens"] = 40
        write_model(directory / "models", model_id=name, engine="transformers", engine_args=arguments, max_batch_size=8)
        (directory / f"{name}.yaml").write_text(CATALOG_ENTRY.format(name=name))
    served = ",".join(f"{name}={models / name}" for name in MODELS)
    with (
        launched(directory, {}, python=python) as server,
        running_embeddings_worker(directory, triton=server.target, models=served, catalog_dir=str(directory)) as worker,
    ):
        await worker.reaches(health_pb2.HealthCheckResponse.SERVING, *MODELS)
        async with worker.connected() as stub:
            yield stub


def expected(models: Path, name: str) -> NDArray[np.float32]:
    return np.asarray(np.load(models / f"{name}.npy"), np.float32)


@pytest.mark.parametrize("name", MODELS)
async def test_vectors_of_a_padded_batch_are_those_without_padding(stub: Any, models: Path, name: str) -> None:
    answer = await stub.Embed(pb.EmbedRequest(model=name, texts=TEXTS), timeout=60)
    np.testing.assert_allclose(vectors(answer), expected(models, name), atol=2e-5)


async def test_tokens_are_counted_by_the_models_tokenizer_with_the_end_token(stub: Any, models: Path) -> None:
    answer = await stub.Embed(pb.EmbedRequest(model=QWEN3_LEFT, texts=TEXTS), timeout=60)
    tokenizer = Tokenizer.from_file(str(models / QWEN3_LEFT / "tokenizer.json"))
    assert list(answer.token_counts) == [len(tokenizer.encode(text).ids) + 1 for text in TEXTS]


async def test_queries_get_the_checkpoints_prompt(stub: Any) -> None:
    query = pb.EmbedRequest(model=QWEN3_RIGHT, texts=["سلام"], input_type=pb.INPUT_TYPE_QUERY)
    same = pb.EmbedRequest(model=QWEN3_RIGHT, texts=[tiny_models.QUERY_PROMPT + "سلام"])
    one, other = [vectors(await stub.Embed(request, timeout=60)) for request in (query, same)]
    np.testing.assert_allclose(one, other, atol=1e-6)


async def test_the_models_own_token_ids_are_accepted(stub: Any, models: Path) -> None:
    tokenizer = Tokenizer.from_file(str(models / QWEN3_RIGHT / "tokenizer.json"))
    ids = [pb.TokenIds(ids=tokenizer.encode(text).ids) for text in TEXTS]
    answer = await stub.Embed(pb.EmbedRequest(model=QWEN3_RIGHT, token_ids=ids), timeout=60)
    np.testing.assert_allclose(vectors(answer), expected(models, QWEN3_RIGHT), atol=2e-5)
    failure = await rejection(stub, pb.EmbedRequest(model=QWEN3_RIGHT, token_ids=[*ids, pb.TokenIds(ids=[1, 99999])]))
    assert failure.message.field == f"token_ids[{len(ids)}]"


async def test_the_spelling_of_a_special_token_is_ordinary_text(stub: Any) -> None:
    answer = await stub.Embed(pb.EmbedRequest(model=QWEN3_RIGHT, texts=[tiny_models.END]), timeout=60)
    assert answer.token_counts[0] > 2


async def test_limits_come_from_the_model_directory(stub: Any) -> None:
    models = (await stub.ListModels(pb.ListModelsRequest(), timeout=5)).models
    assert {model.id: model.normalized for model in models} == {QWEN3_RIGHT: True, QWEN3_LEFT: True, BERT: False}
    assert {model.max_input_tokens for model in models} == {MAX_TOKENS}
    failure = await rejection(stub, pb.EmbedRequest(model=BERT, texts=["a", "x y " * 200]))
    assert (failure.message.field, failure.message.parameters["limit"]) == ("texts[1]", str(MAX_TOKENS))
    cut = await stub.Embed(pb.EmbedRequest(model=BERT, texts=["x y " * 200], truncate=True), timeout=60)
    assert (list(cut.token_counts), list(cut.truncated)) == ([MAX_TOKENS], [True])


async def test_shortened_vectors_have_length_one(stub: Any, models: Path) -> None:
    answer = await stub.Embed(pb.EmbedRequest(model=QWEN3_LEFT, texts=TEXTS, dimensions=16), timeout=60)
    beginning = expected(models, QWEN3_LEFT)[:, :16]
    np.testing.assert_allclose(vectors(answer), beginning / np.linalg.norm(beginning, axis=1, keepdims=True), atol=5e-5)


def test_an_engine_whose_gpu_has_failed_for_good_says_so(python: Path, models: Path) -> None:
    program = [python, "-c", LOST_GPU, str(models / QWEN3_LEFT)]
    output = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100).stdout
    first, second = output.splitlines()
    assert first == str(DIMENSIONS)
    assert second.startswith("ENGINE_FAILED: ")
    assert "it must be restarted: CUDA error: an illegal memory access was encountered" in second


def test_the_check_for_machines_with_a_gpu_runs_without_one(python: Path) -> None:
    program = [python, "-m", "bench.embeddings.gpu_smoke", "--shape", "tiny", "--engines", "transformers", "--json"]
    program += ["--only", "batches", "precision"]
    # Threads that wait for each other are slow on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        program, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=SMOKE_SECONDS
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {row["check"]: row for row in json.loads(ended.stdout)}
    assert {name: row["result"] for name, row in rows.items()} == dict.fromkeys(("load", "batches", "precision"), "ok")
    assert rows["precision"]["least_cosine"] > 0.9999
