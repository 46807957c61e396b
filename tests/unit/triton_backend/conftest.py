"""The engine trtllm with the stand-in for TensorRT-LLM, in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stand_ins import trtllm as stand_in
from tests.support.trtllm_engine import Bench, running_bench


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of the stand-in for a version, installed once for all tests to keep its compiled code."""
    return functools.cache(lambda version: stand_in.install(tmp_path_factory.mktemp("packages"), version=version))


@pytest.fixture(params=["1.2.1", "1.3.0rc29"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(version: str, packages: Callable[[str], Path], tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path, packages(version)) as made:
        yield made
