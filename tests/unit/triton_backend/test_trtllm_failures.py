"""Failures of requests and of the engine trtllm, with a stand-in for TensorRT-LLM."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image

from services.inference.triton_backend import step_progress
from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines import trtllm
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.trtllm_engine import Bench, Reader, read, until

old = pytest.mark.parametrize("version", ["1.2.1"])
new = pytest.mark.parametrize("version", ["1.3.0rc29"])


def test_a_cancelled_request_stops_in_tensorrt_llm(bench: Bench) -> None:
    engine = bench.engine(context_length=100_000)
    answer = bench.ask([1])
    answer.wait_for_tokens()
    answer.cancelled = True
    engine.wake()
    assert answer.wait().reason == "cancelled"
    assert answer.usage.completion_tokens == len(answer.token_ids)
    until(lambda: bench.llm.engine.active == 0)
    until(lambda: engine.load().in_flight == 0)
    assert engine.load().cancelled_total == 1


def test_an_abort_without_a_last_result_releases_the_slot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm, "ABORT_SECONDS", 0.05)
    engine = bench.engine([{"token_ids": [10], "silent_abort": True}], slots=1, context_length=100_000)
    answer = bench.ask([1])
    answer.wait_for_tokens()
    answer.cancelled = True
    following = bench.ask([2], max_tokens=2)
    assert following.wait().reason == "length"
    assert engine.load().in_flight == 0


def test_a_rejected_request_does_not_end_the_engine(bench: Bench) -> None:
    engine = bench.engine()
    bench.llm.args.max_num_tokens = 3
    answer = bench.ask([1] * 4).wait()
    assert answer.error is not None
    assert answer.error.reason == "INVALID_ARGUMENT"
    assert "max_num_tokens (3)" in str(answer.error)
    assert bench.ask([1] * 3, max_tokens=1).wait().reason == "length"
    assert engine.load().in_flight == 0


@pytest.mark.parametrize("broken", ["tiny", "cut off"])
def test_an_image_that_cannot_be_read_does_not_affect_others(bench: Bench, broken: str) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    data = io.BytesIO()
    Image.new("RGB", (9, 9) if broken == "tiny" else (600, 600)).save(data, "PNG")
    answer = Reader()
    image = data.getvalue() if broken == "tiny" else data.getvalue()[:200]
    engine.submit(Request(read({}), [stand_in.IMAGE_TOKEN], images=(image,)), answer)
    error = answer.wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"


def test_a_result_in_an_unknown_form_does_not_affect_others(bench: Bench) -> None:
    bench.engine(
        [{"prompt_contains": [31], "token_ids": [5], "strange_logprobs": True}, {"token_ids": [10]}],
        context_length=100_000,
    )
    error = bench.ask([31], logprobs=1).wait().error
    assert error is not None
    assert "could not be read" in str(error)
    until(lambda: bench.llm.engine.active == 0)
    assert bench.ask([1], max_tokens=1).wait().reason == "length"


def test_a_request_error_does_not_affect_others(bench: Bench) -> None:
    bench.engine([{"prompt_contains": [31], "token_ids": [5], "request_error": "no blocks"}, {"token_ids": [10]}])
    other, failing = bench.ask([1], max_tokens=100), bench.ask([31]).wait()
    assert failing.error is not None
    assert failing.error.reason == "ENGINE_FAILED"
    assert "no blocks" in str(failing.error)
    assert other.wait().reason == "length"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"


def test_a_task_that_tensorrt_llm_cancels_ends_its_request(bench: Bench) -> None:
    engine = bench.engine([{"prompt_contains": [31], "token_ids": [5], "cancelled_error": True}, {"token_ids": [10]}])
    answer = bench.ask([31], temperature=0).wait()
    assert answer.token_ids == [5]
    assert answer.error is not None
    assert answer.error.reason == "ENGINE_FAILED"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    until(lambda: engine.load().in_flight == 0)


def test_any_other_error_ends_the_engine(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    engine = bench.engine([{"prompt_contains": [31], "token_ids": [5], "fatal": "CUDA error"}, {"token_ids": [10]}])
    answers = [bench.ask([1]), bench.ask([31]), bench.ask([1])]
    assert all("CUDA error" in str(answer.wait().error) for answer in answers)
    for call in (engine.load, lambda: bench.ask([1])):
        with pytest.raises(RequestError, match="must be restarted: RuntimeError: CUDA error"):
            call()
    assert "Traceback" in caplog.text


@old
def test_the_next_request_detects_an_engine_that_has_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm, "HEALTH_CHECK_SECONDS", 60)
    engine = bench.engine()
    bench.llm.engine.dead = True
    assert "must be restarted: RuntimeError: LLM is shutting down" in str(bench.ask([1]).wait().error)
    with pytest.raises(RequestError, match="must be restarted"):
        engine.load()


@new
def test_a_health_check_that_fails_itself_ends_the_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise OSError("the pipe is closed")

    monkeypatch.setattr(trtllm, "HEALTH_CHECK_SECONDS", 0.01)
    engine = bench.engine()
    monkeypatch.setattr(bench.llm, "_check_health", broken)
    with pytest.raises(RequestError, match="the pipe is closed"):
        until(lambda: engine.load().in_flight > 0)


def test_processes_that_die_silently_end_the_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm, "HEALTH_CHECK_SECONDS", 0.01)
    engine = bench.engine()
    bench.llm.engine.dead = True
    with pytest.raises(RequestError, match="not healthy"):
        until(lambda: engine.load().in_flight > 0)


def test_closing_the_engine_fails_running_requests(bench: Bench) -> None:
    bench.engine(context_length=100_000)
    answers = [bench.ask([1]) for _ in range(3)]
    answers[0].wait_for_tokens()
    bench.close()
    assert all("stopping" in str(answer.wait().error) for answer in answers)


def test_an_engine_without_results_reports_the_age_of_its_last_step(bench: Bench) -> None:
    engine = bench.engine([{"token_ids": [10], "stalls": True}], slots=2)
    assert engine.load().step_age_s is None
    first = bench.ask([1])
    first.wait_for_tokens()
    until(lambda: (engine.load().step_age_s or 0) > 0.2)
    bench.ask([2]).wait_for_tokens()
    assert (engine.load().step_age_s or 0) < 0.2, "a result is progress"
    first.cancelled = True
    engine.wake()
    first.wait()


def test_a_new_request_is_no_progress(bench: Bench) -> None:
    engine = bench.engine([{"token_ids": [], "stalls": True}], slots=4)
    bench.ask([1])
    until(lambda: (engine.load().step_age_s or 0) > 0.2)
    bench.ask([2])
    until(lambda: engine.load().in_flight == 2)
    assert (engine.load().step_age_s or 0) > 0.2


def test_the_time_to_read_a_long_prompt_is_no_stall(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_progress, "LEAST_PREFILL_TOKENS_PER_SECOND", 20)
    engine = bench.engine([{"token_ids": [], "stalls": True}])
    began = time.monotonic()
    bench.ask([1] * 20)
    until(lambda: (engine.load().step_age_s or 0) > 0)
    assert time.monotonic() - began >= 1
