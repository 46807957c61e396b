"""The engine trtllm with a stand-in that has TensorRT-LLM's surprising behaviour."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines.trtllm_result import UNLIKELY
from services.runtime.messages.message import Message
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.messages import message_of
from tests.support.trtllm_engine import Bench, Reader, read, until

EOS, OTHER_EOS = stand_in.EOS, stand_in.OTHER_EOS
old = pytest.mark.parametrize("version", ["1.2.1"])
new = pytest.mark.parametrize("version", ["1.3.0rc29"])


# The end of a generation


def test_a_generation_without_a_limit_is_longer_than_the_default_of_tensorrt_llm(bench: Bench) -> None:
    bench.engine()
    answer = bench.ask([1, 2]).wait()
    assert len(answer.token_ids) == 254
    assert answer.reason == "length"


@pytest.mark.parametrize("params", [{}, {"min_tokens": 2}])
def test_every_end_token_of_the_checkpoint_ends_a_generation(bench: Bench, params: dict[str, int]) -> None:
    bench.engine([{"token_ids": [5, 6, OTHER_EOS, 7]}])
    answer = bench.ask([1], temperature=0, **params).wait()
    assert (answer.token_ids, answer.reason) == ([5, 6, OTHER_EOS], "stop")
    assert answer.usage.completion_tokens == 3


def test_tensorrt_llm_gets_every_end_token(bench: Bench) -> None:
    bench.engine([{"token_ids": [5, 6, OTHER_EOS, 7]}])
    bench.ask([1], temperature=0, stop_token_ids=[9]).wait()
    until(lambda: bench.llm.engine.active == 0)
    assert set(bench.llm.requests[0][1].stop_token_ids) == {EOS, OTHER_EOS, 9}


def test_end_tokens_do_not_end_a_generation_that_ignores_them(bench: Bench) -> None:
    bench.engine([{"token_ids": [5, EOS, OTHER_EOS]}])
    answer = bench.ask([1], temperature=0, ignore_eos=True, max_tokens=7).wait()
    assert (answer.token_ids, answer.reason) == ([5, EOS, OTHER_EOS, 5, EOS, OTHER_EOS, 5], "length")


@pytest.mark.parametrize("hides_eos", [True, False])
def test_the_end_token_is_sent_once_whether_tensorrt_llm_returns_it_or_not(bench: Bench, *, hides_eos: bool) -> None:
    bench.engine([{"token_ids": [5, 6, EOS], "hides_eos": hides_eos}])
    answer = bench.ask([1], temperature=0, logprobs=2).wait()
    assert (answer.token_ids, answer.reason) == ([5, 6, EOS], "stop")
    assert len(answer.logprobs) == len(answer.top) == answer.usage.completion_tokens == 3


def test_an_end_token_that_is_not_returned_is_known_by_the_finish_reason(bench: Bench) -> None:
    bench.engine([{"token_ids": [5, 6, EOS], "hides_eos": True}])
    answer = bench.ask([1], temperature=0.01).wait()
    assert (answer.token_ids, answer.reason) == ([5, 6, EOS], "stop")


@pytest.mark.parametrize("hides_stop", [True, False])
def test_a_stop_token_is_sent_once_and_ends_the_generation(bench: Bench, *, hides_stop: bool) -> None:
    bench.engine([{"token_ids": [5, 6, 7, 8], "hides_stop": hides_stop}])
    answer = bench.ask([1], temperature=0, stop_token_ids=[7], logprobs=0).wait()
    assert (answer.token_ids, answer.reason) == ([5, 6, 7], "stop")
    assert len(answer.logprobs) == 3
    assert bench.llm.requests[0][1].include_stop_str_in_output is not hides_stop


def test_a_stop_token_waits_for_min_tokens(bench: Bench) -> None:
    bench.engine([{"token_ids": [5, 6, 7, 8]}], context_length=100_000)
    answer = bench.ask([1], temperature=0, stop_token_ids=[7], min_tokens=6).wait()
    assert (answer.token_ids, answer.reason) == ([5, 6, 7, 8, 5, 6, 7], "stop")
    until(lambda: bench.llm.engine.active == 0)


def test_tokens_removed_from_the_last_result_have_no_effect(bench: Bench) -> None:
    bench.engine([{"token_ids": [5, 6, 7, 8], "trims": 2}])
    answer = bench.ask([1], temperature=0, max_tokens=4, logprobs=1).wait()
    assert answer.token_ids[:3] == [5, 6, 7]
    assert answer.usage.completion_tokens == len(answer.token_ids) == len(answer.logprobs)
    assert answer.reason == "length"


@pytest.mark.parametrize(
    ("final", "problem"),
    [
        ("NONE", "without a reason"),
        ("TIMED_OUT", "timeout"),
        ("CANCELLED", "cancelled"),
        ("NO_OUTPUTS", "ended before"),
    ],
)
def test_a_generation_that_tensorrt_llm_ends_early_is_an_error(bench: Bench, final: str, problem: str) -> None:
    bench.engine([{"token_ids": [5, 6], "final": final}])
    answer = bench.ask([1], temperature=0).wait()
    assert answer.token_ids == [5, 6]
    assert answer.error is not None
    assert answer.error.reason == "ENGINE_FAILED"
    assert problem in str(answer.error)


# Tokens before the end


@pytest.mark.parametrize("interval", [1, 3])
def test_every_token_is_sent_once(bench: Bench, interval: int) -> None:
    bench.engine([{"token_ids": list(range(100, 140))}], stream_interval=interval)
    answer = bench.ask([1], temperature=0, max_tokens=40).wait()
    assert answer.token_ids == list(range(100, 140))


def test_tokens_for_a_slow_reader_are_sent_once_it_has_capacity(bench: Bench) -> None:
    engine = bench.engine([{"token_ids": list(range(100, 140))}])
    answer = Reader()
    answer.is_behind = True
    engine.submit(Request(read({"temperature": 0}), [1]), answer)
    until(lambda: engine.load().generated_tokens_total >= 20)
    assert answer.batches == []
    answer.is_behind = False
    engine.wake()
    answer.wait_for_tokens()
    answer.wait()
    assert answer.token_ids == [100 + i % 40 for i in range(255)]


def test_capacity_alone_lets_held_tokens_be_sent(bench: Bench) -> None:
    engine = bench.engine([{"token_ids": [100, 101, 102], "stalls": True}])
    answer = Reader()
    answer.is_behind = True
    engine.submit(Request(read({"temperature": 0}), [1]), answer)
    until(lambda: engine.load().generated_tokens_total == 3)
    answer.is_behind = False
    engine.wake()
    answer.wait_for_tokens()
    assert answer.token_ids == [100, 101, 102]


# Log probabilities


def test_logprobs_of_0_returns_only_those_of_the_chosen_tokens(bench: Bench) -> None:
    bench.engine()
    answer = bench.ask([1], logprobs=0, max_tokens=20).wait()
    assert len(answer.logprobs) == 20
    assert all(-10 < value < 0 for value in answer.logprobs)
    assert answer.top == []


def test_the_most_probable_tokens_are_sorted(bench: Bench) -> None:
    bench.engine()
    answer = bench.ask([1], logprobs=3, max_tokens=20).wait()
    for token_id, value, top in zip(answer.token_ids, answer.logprobs, answer.top, strict=True):
        assert len(top) == 3
        assert [v for _, v in top] == sorted((v for _, v in top), reverse=True)
        assert dict(top).get(token_id, value) == value


def test_a_chosen_token_without_log_probability_counts_as_unlikely(bench: Bench) -> None:
    bench.engine([{"token_ids": [10], "top_without_chosen": True}])
    answer = bench.ask([1], logprobs=1, max_tokens=3, logit_bias={"77": 100}).wait()
    assert answer.token_ids == [77] * 3
    assert answer.logprobs == [UNLIKELY] * 3
    assert [pairs[0][0] for pairs in answer.top] == [10] * 3


@old
def test_log_probabilities_may_be_bare_numbers(bench: Bench) -> None:
    bench.engine([{"token_ids": [10, 11]}], sampler_type="TRTLLMSampler")
    answer = bench.ask([1], temperature=0, logprobs=2, max_tokens=2).wait()
    assert all(-10 < value < 0 for value in answer.logprobs)
    assert [[token_id for token_id, _ in pairs] for pairs in answer.top] == [[10], [11]]


# Parameters


def test_each_request_has_its_own_parameters_completed_by_the_tokenizer(bench: Bench) -> None:
    bench.engine()
    for _ in range(2):
        bench.ask([1], max_tokens=1).wait()
    (_, first, _), (_, second, _) = bench.llm.requests
    assert first is not second
    # end_id was unset, or pad_id would be.
    assert first.end_id == first.pad_id == EOS
    assert first.n == 1
    assert first.stop is None


@pytest.mark.parametrize(("version", "sampler"), [("1.2.1", "auto"), ("1.2.1", "TRTLLMSampler"), ("1.3.0rc29", "auto")])
def test_a_temperature_of_zero_is_repeatable(bench: Bench, sampler: str) -> None:
    bench.engine(sampler_type=sampler)
    answers = [bench.ask([1], temperature=0, top_k=5, top_p=0.9, max_tokens=30).wait().token_ids for _ in range(3)]
    assert answers == [[10 + i % 3 for i in range(30)]] * 3


def test_without_parameters_tokens_are_sampled(bench: Bench) -> None:
    bench.engine()
    answers = [bench.ask([1], max_tokens=50).wait().token_ids for _ in range(2)]
    assert answers[0] != answers[1]


PENALTIES = {"frequency_penalty", "presence_penalty", "repetition_penalty"}
UNKNOWN_TO_THE_LIBRARY: set[str] = {"prompt_logprobs"}
"""Parameters of the contract that the engine does not support with any version of TensorRT-LLM."""
STRUCTURED = {"structured_output", "calls"}
"""Parameters that need guided decoding."""


@pytest.mark.parametrize(
    ("version", "sampler", "missing"),
    [
        (
            "1.2.1",
            "auto",
            {*PENALTIES, "min_p", "seed", "logit_bias", "min_tokens", *STRUCTURED},
        ),
        ("1.2.1", "TRTLLMSampler", STRUCTURED),
        ("1.3.0rc9", "auto", {*PENALTIES, "min_p", "seed", "logit_bias", "min_tokens", *STRUCTURED}),
        ("1.3.0rc20", "auto", {*PENALTIES, "min_p", "seed", "logit_bias", *STRUCTURED}),
        ("1.3.0rc24", "auto", {"seed", "logit_bias", *STRUCTURED}),
        ("1.3.0rc25", "auto", {"seed", "logit_bias", *STRUCTURED}),
        ("1.3.0rc29", "auto", STRUCTURED),
        ("1.3.0", "auto", STRUCTURED),
    ],
)
def test_parameters_that_the_sampler_ignores_are_unsupported(bench: Bench, sampler: str, missing: set[str]) -> None:
    from services.inference.triton_backend.contract import ALL_PARAMETERS, SUPPORTED_BY_ALL

    engine = bench.engine(sampler_type=sampler)
    assert ALL_PARAMETERS - SUPPORTED_BY_ALL - engine.supported_parameters == missing | UNKNOWN_TO_THE_LIBRARY


@pytest.mark.parametrize(("version", "sampler"), [("1.2.1", "TRTLLMSampler"), ("1.3.0rc29", "auto")])
@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_penalties_reach_the_sampler(bench: Bench, sampler: str, penalty: str) -> None:
    bench.engine([{"token_ids": [10]}], sampler_type=sampler)
    assert bench.ask([1], temperature=0, max_tokens=6).wait().token_ids == [10] * 6
    assert bench.ask([1], temperature=0, max_tokens=6, **{penalty: 1.9}).wait().token_ids != [10] * 6


@new
def test_a_seed_makes_a_generation_repeatable(bench: Bench) -> None:
    bench.engine()
    first, second, other = [bench.ask([1], max_tokens=30, seed=seed).wait().token_ids for seed in (-7, -7, 8)]
    assert first == second != other
    assert len(first) == len(other) == 30


@pytest.mark.parametrize(("version", "sampler"), [("1.2.1", "TRTLLMSampler"), ("1.3.0rc10", "auto")])
def test_a_prompt_does_not_count_for_min_tokens(bench: Bench, sampler: str) -> None:
    bench.engine([{"token_ids": [5, EOS, 6]}], sampler_type=sampler)
    answer = bench.ask([1] * 20, temperature=0, min_tokens=10).wait()
    assert len(answer.token_ids) >= 10


@new
def test_a_large_min_p_leaves_the_most_probable_token(bench: Bench) -> None:
    bench.engine()
    assert bench.ask([1], max_tokens=30, min_p=1.0).wait().token_ids == [10 + i % 3 for i in range(30)]


def test_a_bias_forces_and_forbids_tokens(bench: Bench) -> None:
    bench.engine()
    assert bench.ask([1], temperature=0, max_tokens=2, logit_bias={"77": 100}).wait().token_ids == [77, 77]
    assert bench.ask([1], temperature=0, max_tokens=1, logit_bias={"10": -100}).wait().token_ids != [10]


@pytest.mark.parametrize(
    ("prompt", "params"),
    [([stand_in.VOCABULARY], {}), ([1], {"stop_token_ids": [60000]}), ([1], {"logit_bias": {"60000": 1}})],
)
def test_a_token_id_that_would_crash_the_device_is_rejected(
    bench: Bench, prompt: list[int], params: dict[str, object]
) -> None:
    bench.engine()
    with pytest.raises(RequestError) as rejection:
        bench.ask(prompt, **params)
    assert (rejection.value.message_id, rejection.value.parameters["limit"]) == ("engine_token_id_unknown", 49151)


def test_the_prefix_cache_is_shared_within_a_tenant_only(bench: Bench) -> None:
    bench.engine()
    prompt = list(range(100, 170))
    used = [bench.ask(prompt, max_tokens=1, cache_salt=salt).wait().usage.cached_tokens for salt in ("a", "a", "b", "")]
    assert used == [0, 64, 0, 0]


def test_the_callers_span_reaches_versions_that_trace(bench: Bench, version: str) -> None:
    bench.engine()
    headers = {"traceparent": "00-a-b-01", "tracestate": "c=1"}
    bench.ask([1], max_tokens=1, trace_headers=headers).wait()
    assert bench.llm.requests[0][2].get("trace_headers") == (None if version.startswith("1.2") else headers)


@pytest.mark.parametrize("architecture", [stand_in.QWEN25_VL])
def test_images_reach_the_engine(bench: Bench, architecture: str) -> None:
    engine = bench.engine(architecture=architecture)
    data = io.BytesIO()
    Image.new("L", (56, 56)).save(data, "PNG")
    answer = Reader()
    engine.submit(Request(read({"max_tokens": 1}), [1, stand_in.IMAGE_TOKEN, 3], images=(data.getvalue(),)), answer)
    assert answer.wait().reason == "length"
    assert answer.usage.prompt_tokens == 1 + 4 + 1
    inputs = bench.llm.requests[0][0]
    assert inputs["mm_processor_kwargs"] == {}
    assert [image.size for image in inputs["multi_modal_data"]["image"]] == [(56, 56)]


def test_images_are_resized(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    assert engine.supported_parameters >= {"images", "image_sizes"}
    images = []
    for size in ((300, 200), (30, 40)):
        data = io.BytesIO()
        Image.new("P", size).save(data, "GIF")
        images.append(data.getvalue())
    answer = Reader()
    params = read({"max_tokens": 1, "image_sizes": [[84, 56], [56, 56]]})
    engine.submit(Request(params, [1, stand_in.IMAGE_TOKEN, stand_in.IMAGE_TOKEN], images=tuple(images)), answer)
    assert answer.wait().reason == "length"
    given = bench.llm.requests[0][0]["multi_modal_data"]["image"]
    assert [(image.size, image.mode) for image in given] == [((84, 56), "RGB"), ((56, 56), "RGB")]


@pytest.mark.parametrize(("orientation", "size"), [(1, (84, 56)), (6, (56, 84)), (None, (84, 56))])
def test_photos_are_rotated_upright(bench: Bench, orientation: int | None, size: tuple[int, int]) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    exif = Image.Exif()
    exif[0x0112] = orientation or 6
    damaged = b"Exif\0\0damaged" + bytes(20)
    data = io.BytesIO()
    Image.new("RGB", (300, 200)).save(data, "JPEG", exif=damaged if orientation is None else exif)
    answer = Reader()
    params = read({"max_tokens": 1, "image_sizes": [[84, 56]]})
    engine.submit(Request(params, [1, stand_in.IMAGE_TOKEN], images=(data.getvalue(),)), answer)
    assert answer.wait().reason == "length"
    (image,) = bench.llm.requests[0][0]["multi_modal_data"]["image"]
    assert image.size == size
    assert answer.usage.prompt_tokens == 1 + 6


def test_other_formats_are_not_read(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    data = io.BytesIO()
    Image.new("RGB", (56, 56)).save(data, "BMP")
    answer = Reader()
    engine.submit(Request(read({}), [1, stand_in.IMAGE_TOKEN], images=(data.getvalue(),)), answer)
    error = answer.wait().error
    assert error is not None
    assert message_of(error) == Message("image_format_unknown", field="images[0]")


def test_every_image_needs_a_placeholder(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    with pytest.raises(RequestError) as rejection:
        engine.submit(Request(read({}), [1, stand_in.IMAGE_TOKEN], images=(b"", b"")), Reader())
    assert message_of(rejection.value) == Message("image_placeholders_mismatch", placeholders=1, count=2)
