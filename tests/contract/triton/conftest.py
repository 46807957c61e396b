"""One Triton for the whole session, with a model of each engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.worker.triton_client import TritonClient
from tests.contract.triton.subjects import (
    CONTEXT_LENGTH,
    FRAGILE,
    LESSER,
    RECORDINGS,
    REPLAY,
    SLOTS,
    SMOLLM2,
    STAND_IN_ANSWERS,
    TRTLLM_12,
    TRTLLM_13,
    TRTLLM_VERSIONS,
    Subject,
)
from tests.stand_ins import trtllm as stand_in
from tests.support.models import smollm2
from tests.support.triton_servers import serving


@pytest.fixture(scope="session")
def gguf() -> Path:
    return smollm2() / "model.gguf"


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "recordings.json"
    path.write_text(json.dumps(RECORDINGS))
    return path


@pytest.fixture(scope="session")
async def client(gguf: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonClient]:
    limits = {"context_length": CONTEXT_LENGTH, "slots": SLOTS}
    models: dict[str, tuple[str, dict[str, Any]]] = {
        SMOLLM2: ("llamacpp", {"model": str(gguf), "threads": 1, **limits}),
        REPLAY: ("replay", {"recordings": str(recordings), **limits}),
        LESSER: (
            "replay",
            {
                "recordings": str(recordings),
                "slots": 1,
                "max_queued": 1,
                "unsupported_parameters": ["min_p", "structured_output"],
            },
        ),
        FRAGILE: ("replay", {"recordings": str(recordings)}),
    }
    for model_id in TRTLLM_VERSIONS:
        architecture = stand_in.QWEN3_VL if model_id == TRTLLM_13 else stand_in.QWEN3
        directory = tmp_path_factory.mktemp("checkpoint")
        stand_in.write_checkpoint(directory, STAND_IN_ANSWERS, architecture=architecture)
        models[model_id] = ("trtllm", {"model": str(directory), "guided_decoding_backend": "xgrammar", **limits})
    directory = tmp_path_factory.mktemp("triton")
    async with serving(directory, models, trtllm=TRTLLM_VERSIONS) as (_, connected):
        yield connected


@pytest.fixture(params=[False, True], ids=["request", "steps"])
def in_steps(request: pytest.FixtureRequest) -> bool:
    """Whether requests share a stream of steps, or have streams of their own."""
    return bool(request.param)


@pytest.fixture(params=[SMOLLM2, REPLAY, TRTLLM_12, TRTLLM_13])
def subject(client: TritonClient, in_steps: bool, request: pytest.FixtureRequest) -> Subject:
    return Subject(client, request.param, in_steps)
