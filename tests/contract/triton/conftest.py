"""One Triton for the whole session, with a model of each engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.triton_client import TritonClient
from tests.contract.triton.servers import serving
from tests.contract.triton.subjects import CONTEXT_LENGTH, FRAGILE, LESSER, RECORDINGS, REPLAY, SLOTS, SMOLLM2, Subject

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def gguf() -> Path:
    from services.inference import model_import

    directory = ROOT / ".cache" / "models" / SMOLLM2
    model_import.smollm2(directory, progress=lambda _: None)
    return directory / "model.gguf"


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
            {"recordings": str(recordings), "slots": 1, "max_queued": 1, "unsupported_parameters": ["min_p", "guide"]},
        ),
        FRAGILE: ("replay", {"recordings": str(recordings)}),
    }
    async with serving(tmp_path_factory.mktemp("triton"), models) as (_, connected):
        yield connected


@pytest.fixture(params=[SMOLLM2, REPLAY])
def subject(client: TritonClient, request: pytest.FixtureRequest) -> Subject:
    return Subject(client, request.param)
