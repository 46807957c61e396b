"""The arguments with which TensorRT-LLM loads a model, and the messages when it cannot."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from services.inference.triton_backend.engine_version import at_least
from services.inference.triton_backend.engines import trtllm
from tests.stand_ins import trtllm as stand_in
from tests.support.trtllm_engine import Bench, forget_stand_in


@pytest.mark.parametrize(
    ("version", "wanted", "is_met"),
    [
        ("1.2.1", "1.2", True),
        ("1.2.1", "1.2.1", True),
        ("1.2.1", "1.3", False),
        ("1.2.0rc3", "1.2.1", False),
        ("1.3.0rc0", "1.3", True),
        ("1.3.0rc18", "1.3.0rc19", False),
        ("1.3.0rc19", "1.3.0rc19", True),
        ("1.3.0", "1.3.0rc19", True),
        ("1.10.0", "1.3", True),
        ("1.4.0rc1+cu13", "1.3", True),
    ],
)
def test_versions_are_compared_as_releases(version: str, wanted: str, *, is_met: bool) -> None:
    assert at_least(version, wanted) is is_met


@pytest.mark.parametrize(
    ("version", "arguments", "problem"),
    [
        (
            "1.2.1",
            {"requires": ">=1.3"},
            "needs TensorRT-LLM 1.3 or newer, and 1.2.1 is installed; use an image that has it",
        ),
        ("1.3.0rc18", {"requires": ">=1.3.0rc19"}, "needs TensorRT-LLM 1.3.0rc19 or newer"),
        ("1.2.1", {"requires": "1.3"}, "requires='1.3': expected a version as in >=1.3"),
        (
            "1.2.1",
            {"architecture": stand_in.QWEN3_VL},
            "1.2.1 cannot run Qwen3VLForConditionalGeneration; use an image",
        ),
        ("1.2.1", {"max_batch": 3}, "TensorRT-LLM 1.2.1 has no argument 'max_batch'"),
        ("1.2.1", {"max_batch_size": 3}, "max_batch_size is the engine's own; use slots"),
        ("1.2.1", {"kv_cache_config": {"dtype": "fp4"}}, "dtype"),
        ("1.2.1", {"tensor_parallel_size": 16}, "Only 8 GPUs are available, but 16 are required"),
        (
            "1.2.1",
            {"context_length": 9000, "max_num_tokens": 8192},
            "max_num_tokens=8192 is less than the context of 9000",
        ),
        ("1.3.0rc29", {"sampler_type": "TRTLLMSampler"}, "has no TRTLLMSampler any more; leave sampler_type out"),
        (
            "1.2.1",
            {"enable_chunked_prefill": True, "architecture": stand_in.QWEN25_VL},
            "cannot split prompts with images; leave enable_chunked_prefill out",
        ),
    ],
)
def test_invalid_arguments_are_rejected_with_a_remedy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], problem: str
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    with pytest.raises((ValueError, RuntimeError)) as rejection:
        bench.engine(**arguments)
    assert problem in str(rejection.value)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", '{"vocab_size": 3}', "architectures"),
        ("config.json", None, "config.json"),
    ],
)
def test_an_invalid_checkpoint_is_rejected_with_its_file(
    bench: Bench, tmp_path: Path, file: str, content: str | None, problem: str
) -> None:
    model = stand_in.write_checkpoint(tmp_path / "broken", [{"token_ids": [1]}])
    (model / file).unlink()
    if content is not None:
        (model / file).write_text(content)
    with pytest.raises((ValueError, OSError), match=problem):
        trtllm.create({"model": str(model), "context_length": 256})


def test_a_missing_package_is_reported_with_a_remedy() -> None:
    forget_stand_in()
    with pytest.raises(RuntimeError, match=r"tensorrt_llm cannot be imported.*-trtllm-python-py3"):
        trtllm.create({"model": "/nowhere", "context_length": 256})


def test_a_missing_field_makes_its_parameter_unsupported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    fields = dataclasses.fields
    monkeypatch.setattr(dataclasses, "fields", lambda kind: [f for f in fields(kind) if f.name != "embedding_bias"])
    assert "logit_bias" not in bench.engine().supported_parameters


def test_a_version_without_a_required_field_is_rejected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    fields = dataclasses.fields
    monkeypatch.setattr(dataclasses, "fields", lambda kind: [f for f in fields(kind) if f.name != "ignore_eos"])
    with pytest.raises(RuntimeError, match=r"SamplingParams has no ignore_eos; use 1\.2\.1 or 1\.3"):
        bench.engine()


def test_a_version_without_cache_salts_requires_a_cache_without_reuse(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = inspect.signature

    def without_salt(function: Any) -> inspect.Signature:
        found = signature(function)
        return found.replace(parameters=[p for p in found.parameters.values() if p.name != "cache_salt"])

    monkeypatch.setattr(inspect, "signature", without_salt)
    with pytest.raises(ValueError, match=r"caches of tenants apart; set kv_cache_config\.enable_block_reuse"):
        bench.engine()
    bench.engine(kv_cache_config={"enable_block_reuse": False})
    prompt = list(range(100, 170))
    used = [bench.ask(prompt, max_tokens=1, cache_salt="a").wait().usage.cached_tokens for _ in range(2)]
    assert used == [0, 0]


def test_the_longest_prompt_is_not_rejected(bench: Bench) -> None:
    bench.engine(context_length=10_000)
    assert bench.ask([1] * 9_990, max_tokens=1).wait().reason == "length"


def test_a_step_has_capacity_for_several_prompts_of_a_short_context(bench: Bench) -> None:
    bench.engine(context_length=256)
    assert bench.llm.args.max_num_tokens == 8192


def test_the_version_is_described(bench: Bench, version: str) -> None:
    assert bench.engine().version == f"TensorRT-LLM {version}"


def test_the_tokenizers_end_token_counts_without_a_generation_config(bench: Bench, tmp_path: Path) -> None:
    model = stand_in.write_checkpoint(tmp_path / "model", [{"token_ids": [5, stand_in.EOS]}])
    (model / "generation_config.json").unlink()
    engine = trtllm.create({"model": str(model), "context_length": 256})
    try:
        assert bench.ask([1], engine, temperature=0).wait().token_ids == [5, stand_in.EOS]
    finally:
        engine.close()


def test_the_vocabulary_of_a_vision_model_is_that_of_its_text_part(bench: Bench, tmp_path: Path) -> None:
    model = stand_in.write_checkpoint(tmp_path / "model", [{"token_ids": [5]}], architecture=stand_in.QWEN25_VL)
    config = json.loads((model / "config.json").read_text())
    config["text_config"] = {"vocab_size": 9}
    (model / "config.json").write_text(json.dumps(config))
    engine = trtllm.create({"model": str(model), "context_length": 256})
    try:
        with pytest.raises(Exception, match='"limit": 8'):
            bench.ask([9], engine)
    finally:
        engine.close()
    assert "tensorrt_llm" in sys.modules
