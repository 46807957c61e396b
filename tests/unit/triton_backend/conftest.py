"""The engine trtllm over the stand-in for TensorRT-LLM, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.trtllm_engine import Bench, running_bench


@pytest.fixture(params=["1.2.1", "1.3.0rc29"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(version: str, tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path, version) as made:
        yield made
