"""One Triton for the whole session, with a model of each engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.worker.triton_client import TritonClient
from tests.contract.triton.subjects import (
    FRAGILE,
    LESSER,
    LIMITS,
    QUESTION,
    RECORDINGS,
    REPLAY,
    SHORT_RECORDING,
    SMOLLM2,
    STAND_IN_ANSWERS,
    STORY,
    STORY_RECORDING,
    TRTLLM_12,
    TRTLLM_13,
    TRTLLM_VERSIONS,
    VLLM,
    VLLM_PROMPT,
    Subject,
)
from tests.stand_ins import trtllm as stand_in
from tests.support import tiny_checkpoints, vllm_models
from tests.support.environments import python_of
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
    models: dict[str, tuple[str, dict[str, Any]]] = {
        SMOLLM2: ("llamacpp", {"model": str(gguf), "threads": 1, **LIMITS}),
        REPLAY: ("replay", {"recordings": str(recordings), **LIMITS}),
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
        models[model_id] = ("trtllm", {"model": str(directory), "guided_decoding_backend": "xgrammar", **LIMITS})
    directory = tmp_path_factory.mktemp("triton")
    async with serving(directory, models, trtllm=TRTLLM_VERSIONS) as (_, connected):
        yield connected


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the tokenizer of SmolLM2, which has learned what the stand-ins answer."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    checkpoint = tiny_checkpoints.Checkpoint(
        directory=str(directory),
        architecture=tiny_checkpoints.QWEN3,
        tokenizer=str(smollm2()),
        vocabulary=49_152,
        ends=(2, 0),
        prompt=VLLM_PROMPT,
        sequences=((QUESTION[-1], *SHORT_RECORDING), (STORY[-1], *STORY_RECORDING, STORY_RECORDING[0])),
        # About ten milliseconds per token: requests must still run when their state is read.
        idle_layers=40,
    )
    tiny_checkpoints.make(python_of(vllm_models.ENVIRONMENT), [checkpoint])
    return directory


@pytest.fixture(scope="session")
async def vllm_client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonClient]:
    models = {VLLM: {"model": str(tiny_model), **LIMITS}}
    async with vllm_models.serving(tmp_path_factory.mktemp("vllm"), models) as (_, connected):
        yield connected


@pytest.fixture(params=[False, True], ids=["request", "steps"])
def in_steps(request: pytest.FixtureRequest) -> bool:
    """Whether requests share a stream of steps, or have streams of their own."""
    return bool(request.param)


@pytest.fixture(params=[SMOLLM2, REPLAY, TRTLLM_12, TRTLLM_13, pytest.param(VLLM, marks=vllm_models.MARKS)])
def subject(in_steps: bool, request: pytest.FixtureRequest) -> Subject:
    # The servers are in different environments: only the one of the subject is started.
    client = request.getfixturevalue("vllm_client" if request.param == VLLM else "client")
    return Subject(client, request.param, in_steps)
