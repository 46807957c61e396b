"""The engine trtllm over the stand-in for TensorRT-LLM, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stand_ins import trtllm as stand_in
from tests.unit.triton_backend.trtllm_engine import Bench, forget_stand_in


@pytest.fixture(params=["1.2.1", "1.3.0rc29"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    forget_stand_in()
    monkeypatch.syspath_prepend(stand_in.install(tmp_path / "packages", version=version))
    made = Bench(tmp_path)
    yield made
    made.close()
    forget_stand_in()
