"""A real worker process in front of a real Triton, with a real model and with recordings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.tokenizer import ModelTokenizer
from tests.support.models import smollm2
from tests.support.triton_servers import Server, serving
from tests.support.workers import Worker, running_inference_worker

MODEL, REPLAY = "smollm2-135m", "replay"
PERSIAN = "سلام! می\u200cخواهم 👨‍👩‍👧‍👦 و 🇮🇷 و كِتَابٌ را ببینم؛ END این دیگر دیده نمی\u200cشود."
CATALOG_ENTRY = """\
id: replay
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
context_length: 512
engine: {name: replay}
control_tokens_in_prompts: true
descriptions: {en: Recordings.}
"""


@pytest.fixture(scope="session")
def model_directory() -> Path:
    return smollm2()


@pytest.fixture(scope="session")
def persian_ids(model_directory: Path) -> list[int]:
    return ModelTokenizer(model_directory).encode(PERSIAN)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, persian_ids: list[int]) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "recordings.json"
    long = {"name": "long", "prompt_contains": [7, 7], "token_ids": list(range(1000, 1200)), "interval_ms": 20}
    persian = {"name": "persian", "token_ids": [*persian_ids, 2], "interval_ms": 2}
    word = ModelTokenizer(model_directory).encode(" slowly")
    slow = {"name": "slow", "prompt_contains": word, "token_ids": [*persian_ids, 2], "interval_ms": 50}
    path.write_text(json.dumps([long, slow, persian]))
    return path


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> dict[str, str]:
    """The settings of a worker that serves both models, without those of its Triton."""
    catalog = tmp_path_factory.mktemp("catalog")
    (catalog / "replay.yaml").write_text(CATALOG_ENTRY)
    return {
        "models": f"{MODEL}={model_directory},{REPLAY}={model_directory}",
        "catalog_dir": str(catalog),
        "status_seconds": "0.2",
    }


@pytest.fixture(scope="session")
def engines(model_directory: Path, recordings: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        MODEL: ("llamacpp", {"model": str(model_directory / "model.gguf"), "context_length": 256, "slots": 2}),
        REPLAY: ("replay", {"recordings": str(recordings), "context_length": 512, "slots": 8}),
    }


@pytest.fixture(scope="session")
async def triton(
    tmp_path_factory: pytest.TempPathFactory, engines: dict[str, tuple[str, dict[str, Any]]]
) -> AsyncIterator[Server]:
    async with serving(tmp_path_factory.mktemp("triton"), engines) as (server, _):
        yield server


@pytest.fixture(scope="session")
async def worker(
    tmp_path_factory: pytest.TempPathFactory, triton: Server, settings: dict[str, str]
) -> AsyncIterator[Worker]:
    with running_inference_worker(tmp_path_factory.mktemp("worker"), triton=triton.target, **settings) as running:
        await running.reaches(health_pb2.HealthCheckResponse.SERVING, MODEL, REPLAY)
        yield running


@pytest.fixture
async def stub(worker: Worker) -> AsyncIterator[Any]:
    async with worker.connected() as stub:
        yield stub


def ask(model: str = REPLAY, **fields: Any) -> pb.GenerateRequest:
    """Return a request; `prompt_token_ids=[7, 7]` gets the long recording, and others the Persian one."""
    if not fields.keys() & {"messages", "prompt_token_ids"}:
        fields["messages"] = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام")])]
    return pb.GenerateRequest(model=model, **fields)
