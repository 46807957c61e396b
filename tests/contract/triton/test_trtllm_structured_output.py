"""Structured outputs of the engine trtllm, which are tried in child processes before TensorRT-LLM gets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference.triton_backend.contract import StructuredOutput
from services.inference.triton_backend.trial import Trials
from services.runtime.messages.message import Message
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.messages import message_of
from tests.support.trtllm_engine import Bench, running_bench

TRIES = 10
"""Trials while the machine is too busy to give one its time."""


@pytest.fixture(params=["1.2.1", "1.3.0rc29"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path, stand_in.install(tmp_path / "packages", version=request.param)) as made:
        yield made


@pytest.mark.parametrize(
    ("structured_output", "text"),
    [
        ({"json": {"type": "object"}}, '{"city": "تهران"}'),
        ({"json_object": True}, "{}"),
        ({"regex": "4[0-9]"}, "42"),
        ({"grammar": 'root ::= "oui"'}, "oui"),
        ({"structural_tag": {}}, "x"),
    ],
)
def test_structured_outputs_reach_the_engine(bench: Bench, structured_output: dict[str, object], text: str) -> None:
    bench.engine(guided_decoding_backend="xgrammar")
    answer = bench.ask([1], structured_output=structured_output, temperature=0).wait()
    assert "".join(map(chr, answer.token_ids[:-1])) == text


CALLS = {"opening": "<tool_call>", "closing": "</tool_call>", "schema": {"type": "object"}, "parallel": True}


@pytest.mark.parametrize(
    ("structured_output", "element"),
    [
        ({"regex": "a/b"}, {"type": "regex", "pattern": "a/b"}),
        ({"grammar": 'root ::= "a"'}, {"type": "grammar", "grammar": 'root ::= "a"'}),
    ],
)
def test_calls_reach_the_engine_as_a_structural_tag(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, structured_output: dict[str, str], element: dict[str, str]
) -> None:
    tried: list[StructuredOutput] = []
    monkeypatch.setattr(Trials, "check", lambda _, output: tried.append(output))
    engine = bench.engine(guided_decoding_backend="xgrammar")
    assert "calls" in engine.supported_parameters
    tried.clear()
    bench.ask([1], calls=CALLS, structured_output=structured_output).wait()
    (output,) = tried
    assert output.kind == "structural_tag"
    calls, otherwise = json.loads(output.text)["format"]["elements"]
    assert calls["tags"][0]["begin"] == "<tool_call>\n"
    assert otherwise == element


def test_a_library_that_cannot_hold_calls_leaves_them_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_: Trials, output: StructuredOutput) -> int:
        if output.kind == "structural_tag":
            raise RequestError("INVALID_ARGUMENT", "structured_output_not_valid", field="f", reason="unknown format")
        return 0

    monkeypatch.setattr(Trials, "check", check)
    engine = bench.engine(guided_decoding_backend="xgrammar")
    assert "structured_output" in engine.supported_parameters
    assert "calls" not in engine.supported_parameters


def test_a_structured_output_that_the_backend_does_not_support_is_rejected(bench: Bench) -> None:
    bench.engine(guided_decoding_backend="llguidance")
    with pytest.raises(RequestError) as rejection:
        bench.ask([1], structured_output={"structural_tag": {}})
    assert rejection.value.message_id == "structured_output_kind_not_supported"


@pytest.mark.parametrize(
    ("structured_output", "message"),
    [
        (
            {"regex": "(("},
            Message(
                "structured_output_not_valid",
                field="structured_output",
                reason="Regex parsing error at position 2: the parenthesis is not closed",
            ),
        ),
        ({"regex": "crash"}, Message("structured_output_nested_too_deeply", field="structured_output")),
        ({"regex": "slow"}, Message("structured_output_compiles_too_long", field="structured_output", limit=2)),
        (
            {"json": {"minItems": 10**9}},
            Message("structured_output_compiles_in_too_much", field="structured_output", limit=512),
        ),
    ],
)
def test_a_structured_output_that_fails_its_trial_never_reaches_the_engine(
    bench: Bench, structured_output: dict[str, object], message: Message
) -> None:
    engine = bench.engine(guided_decoding_backend="xgrammar")
    error = rejection_of(bench, structured_output)
    assert error.reason == "INVALID_ARGUMENT"
    assert message_of(error) == message
    assert not bench.llm.requests
    assert engine.load().queued == 0
    assert bench.ask([1], structured_output={"regex": "4[0-9]"}, temperature=0).wait().reason == "stop"


def rejection_of(bench: Bench, structured_output: dict[str, object]) -> RequestError:
    """Return the error of a request, which is sent again while the machine is too busy for its trial."""
    for _ in range(TRIES):
        error = bench.ask([1], structured_output=structured_output).wait().error
        assert error is not None
        if error.reason != "OVERLOADED":
            break
    return error


def test_a_request_cancelled_during_its_trial_ends_at_once(bench: Bench) -> None:
    engine = bench.engine(guided_decoding_backend="xgrammar")
    reader = bench.ask([1], structured_output={"regex": "slow"})
    assert engine.load().queued == 1
    reader.cancelled = True
    assert reader.wait().reason == "cancelled"


def test_structured_output_is_unsupported_if_it_cannot_be_tried(bench: Bench) -> None:
    engine = bench.engine(guided_decoding_backend="llguidance")
    assert "structured_output" not in engine.supported_parameters
    assert engine.structured_output_library == ""
    with pytest.raises(RequestError) as rejection:
        bench.ask([1], structured_output={"regex": "a"})
    assert rejection.value.message_id == "structured_output_kind_not_supported"


def test_the_models_arguments_reach_tensorrt_llm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    engine = bench.engine(
        slots=7,
        context_length=512,
        tensor_parallel_size=4,
        moe_expert_parallel_size=4,
        enable_attention_dp=True,
        enable_chunked_prefill=True,
        guided_decoding_backend="xgrammar",
        kv_cache_config={"dtype": "fp8", "free_gpu_memory_fraction": 0.8, "host_cache_size": 1 << 30},
    )
    args = bench.llm.args
    # Each of the four ranks has slots of its own.
    assert (args.max_batch_size, args.max_seq_len, args.max_input_len) == (2, 512, 512)
    assert (args.tensor_parallel_size, args.moe_expert_parallel_size, args.enable_attention_dp) == (4, 4, True)
    assert (args.enable_chunked_prefill, args.guided_decoding_backend) == (True, "xgrammar")
    assert (args.kv_cache_config.dtype, args.kv_cache_config.free_gpu_memory_fraction) == ("fp8", 0.8)
    assert "structured_output" in engine.supported_parameters
