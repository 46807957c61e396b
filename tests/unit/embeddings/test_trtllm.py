"""The trtllm engine, with a stand-in for TensorRT-LLM, which cannot be imported without a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.unit.embeddings.test_texts import sentence_transformers_files

NAME = "services.embeddings.triton_backend.engines.trtllm"


class Tensor:
    def __init__(self, numbers: list[float]) -> None:
        self.numbers = numbers

    def float(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.array([self.numbers], np.float32)


class LLM:
    made: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:
        LLM.made = arguments

    def encode(self, rows: Sequence[Sequence[int]]) -> list[Any]:
        assert all(isinstance(row, list) for row in rows)
        return [SimpleNamespace(logits=Tensor([3.0 * len(row), 4.0 * len(row)])) for row in rows]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    stand_in = ModuleType("tensorrt_llm")
    stand_in.__dict__.update(__version__="1.3.0rc29", LLM=LLM)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    sentence_transformers_files(tmp_path, {"pooling_mode_lasttoken": True}, "Transformer", "Pooling", "Normalize")
    config = {"max_position_embeddings": 512, "model_type": "qwen3", "hidden_size": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_texts_are_encoded_and_vectors_normalized(engine: Any, directory: Path) -> None:
    made = engine.create({"model": str(directory), "tensor_parallel_size": 2})
    assert LLM.made == {
        "model": str(directory),
        "encode_only": True,
        "model_kwargs": {"architectures": ["Qwen3ForTextEmbedding"]},
        "tensor_parallel_size": 2,
    }
    assert_allclose(made.embed([[1, 2], [3]]), [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    assert (made.description.dimensions, made.description.takes, made.description.max_input_tokens) == (
        2,
        "token_ids",
        512,
    )


@pytest.mark.parametrize("version", ["1.2.1", "0.21.0", "1.2.0rc3"])
def test_a_version_without_encode_is_rejected_with_what_to_do(
    engine: Any, directory: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(engine.tensorrt_llm, "__version__", version)
    with pytest.raises(
        ValueError, match=f"{version} cannot embed; it needs 1.3 or newer, or use the engine transformers"
    ):
        engine.create({"model": str(directory)})


def test_an_unsupported_checkpoint_is_rejected(engine: Any, directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    with pytest.raises(ValueError, match="'bert' cannot be encoded; qwen3 can"):
        engine.create({"model": str(directory)})
