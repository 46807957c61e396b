"""The embedding model in Triton, with an engine that fails, and a stand-in for Triton's Python module."""

from __future__ import annotations

import importlib
import json
import sys
import weakref
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.embeddings.triton_backend.contract import Description
from services.worker.triton_kit.request_error import RequestError

MODULES = ("services.worker.triton_kit.triton_model", "services.embeddings.triton_backend.model")


class Memory:
    """Memory of a device, which belongs to what an engine computes at the moment."""


class Engine:
    """Has memory for one row at a time, and none while an earlier failure keeps its own."""

    def __init__(self) -> None:
        self.failed: list[weakref.ref[Memory]] = []
        self.is_dead = False

    @property
    def description(self) -> Description:
        if self.is_dead:
            raise RequestError("ENGINE_FAILED", "engine_failed", reason="it must be restarted")
        return Description("fake", "1", "token_ids", 1, 8, normalized=False)

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if any(memory() is not None for memory in self.failed):
            raise RuntimeError("out of memory: the failed batch still has it")
        if len(rows) > 1:
            memory = Memory()
            self.failed.append(weakref.ref(memory))
            raise RuntimeError("out of memory")
        return np.asarray(rows, np.float32)


class TritonError:
    INTERNAL = 13

    def __init__(self, message: str, code: int) -> None:
        self.message = message


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake: Any = SimpleNamespace(
        InferenceResponse=lambda tensors=None, error=None: error or dict(tensors),
        Tensor=lambda name, values: (name, values),
        TritonError=TritonError,
        Logger=SimpleNamespace(log_error=print),
        get_input_tensor_by_name=lambda request, name: request.get(name),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    for name in MODULES:
        sys.modules.pop(name, None)
    made = importlib.import_module(MODULES[1]).TritonPythonModel()
    made._engine = Engine()
    yield made
    for name in MODULES:
        sys.modules.pop(name, None)


class Request(dict[str, Any]):
    """A request, as its input tensors by name."""

    def request_id(self) -> str:
        return "req-1"


def request(name: str, value: bytes) -> Request:
    return Request({name: SimpleNamespace(as_numpy=lambda: np.array([[value]], np.object_))})


def test_the_memory_of_a_failed_batch_is_free_when_its_requests_are_repeated(model: Any) -> None:
    rows = [np.array([number], "<i4").tobytes() for number in range(3)]
    answers = model.execute([request("token_ids", row) for row in rows])
    assert [answer["embedding"].tolist() for answer in answers] == [[[0.0]], [[1.0]], [[2.0]]]


def test_an_engine_that_has_failed_for_good_does_not_describe_itself(model: Any) -> None:
    described = model.execute([request("params", b'{"describe": true}')])
    assert json.loads(described[0]["description"][0][0])["engine"] == "fake"
    model._engine.is_dead = True
    failed = model.execute([request("params", b'{"describe": true}'), request("token_ids", b"\1\0\0\0")])
    assert ["it must be restarted" in answer.message for answer in failed] == [True, True]
