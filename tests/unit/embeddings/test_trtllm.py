"""The trtllm engine, with a stand-in for TensorRT-LLM, which cannot be imported without a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose

from services.deployment import rendering
from services.embeddings import catalog
from tests.stand_ins import trtllm as stand_in
from tests.support.trtllm_engine import forget_stand_in
from tests.unit.embeddings.test_texts import sentence_transformers_files

NAME = "services.embeddings.triton_backend.engines.trtllm"


@pytest.fixture
def version() -> str:
    return "1.3.0rc29"


@pytest.fixture
def engine(version: str, tmp_path: Path) -> Iterator[Any]:
    packages = stand_in.install(tmp_path / "packages", version=version)
    forget_stand_in()
    sys.modules.pop(NAME, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)
    forget_stand_in()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    sentence_transformers_files(tmp_path, {"pooling_mode_lasttoken": True}, "Transformer", "Pooling", "Normalize")
    config = {
        "max_position_embeddings": 512,
        "model_type": "qwen3",
        "hidden_size": 2,
        "architectures": ["Qwen3ForCausalLM"],
    }
    (tmp_path / "stand_in.json").write_text('{"eos_token_id": 2}')
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_texts_are_encoded_and_vectors_normalized(engine: Any, directory: Path) -> None:
    made = engine.create({"model": str(directory), "enable_iter_perf_stats": True})
    arguments = sys.modules["tensorrt_llm"].LLM.made[-1].args
    assert arguments.encode_only
    assert arguments.model_kwargs == {"architectures": ["Qwen3ForTextEmbedding"]}
    assert arguments.enable_iter_perf_stats
    assert sys.modules["tensorrt_llm.usage"].SENT == []
    assert_allclose(made.embed([[1, 2], [3]]), [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    assert (made.description.dimensions, made.description.takes, made.description.max_input_tokens) == (
        2,
        "token_ids",
        512,
    )


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"max_num_tokens": 100}, [[1] * 512]),
        ({"max_num_tokens": 1000}, [[1] * 500] * 5),
        ({"max_batch_size": 2}, [[1]] * 5),
    ],
    ids=["the longest text", "many tokens", "many texts"],
)
def test_batches_of_any_size_are_encoded(
    engine: Any, directory: Path, arguments: dict[str, int], rows: list[list[int]]
) -> None:
    made = engine.create({"model": str(directory), **arguments})
    assert made.embed(rows).shape == (len(rows), 2)


@pytest.mark.parametrize("model_id", ["qwen3-embedding-0.6b", "qwen3-embedding-8b"])
def test_the_limits_are_those_of_the_catalog(tmp_path: Path, model_id: str) -> None:
    spec = rendering.find(model_id)
    assert isinstance(spec, catalog.ModelSpec)
    written = rendering.render(tmp_path / "repository", spec, directory=tmp_path, engine="trtllm", gpus=1)
    config = (written / "config.pbtxt").read_text()
    arguments = {"max_num_tokens": spec.max_input_tokens, "max_seq_len": spec.max_input_tokens, "max_batch_size": 64}
    assert all(f'\\"{name}\\": {value}' in config for name, value in arguments.items()), config


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc9"])
def test_a_version_without_encode_is_rejected_with_what_to_do(engine: Any, directory: Path, version: str) -> None:
    with pytest.raises(ValueError, match=rf"{version} cannot embed; it needs .* or use the engine transformers"):
        engine.create({"model": str(directory)})


def test_an_unsupported_checkpoint_is_rejected(engine: Any, directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    with pytest.raises(ValueError, match="'bert' cannot be encoded; qwen3 can"):
        engine.create({"model": str(directory)})
