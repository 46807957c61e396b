"""The readiness that the model reports to Triton. (Only newer versions than the Triton of the tests ask for it.)"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.trtllm_engine import Bench

BACKEND = "services.inference.triton_backend"


@pytest.fixture
def model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    made = importlib.import_module(f"{BACKEND}.model").TritonPythonModel()
    made._engine = bench.engine([{"token_ids": [5], "fatal": "CUDA error"}])
    yield made
    for name in ("model", "stream"):
        sys.modules.pop(f"{BACKEND}.{name}", None)


def test_a_model_is_ready_until_its_engine_has_failed(bench: Bench, model: Any) -> None:
    assert model.is_ready()
    bench.ask([1]).wait()
    assert not model.is_ready()
