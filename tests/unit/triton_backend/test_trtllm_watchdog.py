"""The end of TensorRT-LLM that nothing reports, and errors that look like it, with a stand-in for TensorRT-LLM."""

from __future__ import annotations

from typing import Any

import pytest

from services.inference.triton_backend.engines import trtllm, trtllm_probe, trtllm_statistics, trtllm_watchdog
from services.worker.triton_kit.request_error import RequestError
from tests.support.trtllm_engine import SECONDS, Bench, until

ENDLESS = 100_000
DEVICE_ERROR = "CUDA error: an illegal memory access was encountered"


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the watchdog suspect the engine sooner, and wait for a probe as long as a reader for its request."""
    monkeypatch.setattr(trtllm, "HEALTH_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(trtllm_statistics, "STATISTICS_SECONDS", 0.01)
    monkeypatch.setattr(trtllm_watchdog, "PROBE_AFTER_SECONDS", 0.5)
    monkeypatch.setattr(trtllm_probe, "PROBE_SECONDS", SECONDS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def failure(engine: trtllm.TrtllmEngine) -> str:
    """Wait until the engine reports its end, and return its message."""
    found: list[str] = []

    def has_failed() -> bool:
        try:
            engine.load()
        except RequestError as error:
            found.append(str(error))
        return bool(found)

    until(has_failed)
    return found[0]


def is_probed(bench: Bench, times: int) -> None:
    """Wait until the engine was probed some times."""
    until(lambda: sum(params.max_tokens == 1 for _, params, _ in list(bench.llm.requests)) >= times)


@pytest.mark.parametrize("script", [{"dies": "Sampling failed"}, {"vanishes": True}])
def test_an_engine_whose_thread_has_ended_is_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, script: dict[str, Any]
) -> None:
    monkeypatch.setattr(trtllm_probe, "PROBE_SECONDS", 0.2)
    engine = bench.engine([{"prompt_contains": [31], "token_ids": [5], **script}, {"token_ids": [10]}], stall_seconds=1)
    bench.ask([31])
    until(lambda: bench.llm.engine.lost)
    waiting = [bench.ask([1]), bench.ask([2]), bench.ask([3])]
    assert "no probe" in failure(engine)
    assert all("must be restarted" in str(reader.wait().error) for reader in waiting)
    with pytest.raises(RequestError, match="must be restarted"):
        bench.ask([1])


def test_an_engine_that_lost_cancelled_requests_makes_no_progress_until_it_is_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtllm_probe, "PROBE_SECONDS", 0.2)
    engine = bench.engine([{"token_ids": [5], "vanishes": True}], stall_seconds=1)
    reader = bench.ask([31])
    until(lambda: (engine.load().step_age_s or 0) > 0.7)
    reader.cancelled = True
    engine.wake()
    reader.wait()
    assert (engine.load().step_age_s or 0) > 0.7, "without requests, a dead engine looks idle"
    assert "no probe" in failure(engine)


def test_the_end_of_a_thread_in_this_process_shows_without_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLLM_WORKER_USE_SINGLE_PROCESS", "1")
    engine = bench.engine()
    bench.llm.engine.lost = True
    assert "not healthy" in failure(engine)


def test_an_engine_that_fails_every_request_is_failed(bench: Bench) -> None:
    script = {"prompt_contains": [31], "token_ids": [5], "breaks": DEVICE_ERROR}
    engine = bench.engine([script, {"token_ids": [10]}], context_length=ENDLESS)
    other, first = bench.ask([1]), bench.ask([31])
    assert DEVICE_ERROR in str(first.wait().error)
    assert DEVICE_ERROR in str(other.wait().error)
    assert f"it fails every request: {DEVICE_ERROR}" in failure(engine)


def test_many_errors_in_a_row_cast_suspicion_on_the_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm_watchdog, "ERRORS_IN_A_ROW", 3)
    engine = bench.engine([{"token_ids": [], "breaks": "strange"}])
    for _ in range(3):
        assert "strange" in str(bench.ask([1]).wait().error)
    assert "it fails every request: strange" in failure(engine)


def test_an_error_of_all_requests_does_not_end_an_engine_that_recovers(bench: Bench) -> None:
    script = {"prompt_contains": [31], "token_ids": [5], "fails_all": DEVICE_ERROR}
    engine = bench.engine([script, {"token_ids": [10]}], context_length=ENDLESS)
    other, first = bench.ask([1]), bench.ask([31])
    assert DEVICE_ERROR in str(first.wait().error)
    assert DEVICE_ERROR in str(other.wait().error)
    is_probed(bench, 1)
    assert bench.ask([1], max_tokens=2).wait().reason == "length"
    until(lambda: engine.load().step_age_s is None)


def test_a_caller_cannot_end_the_engine_with_errors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm_watchdog, "ERRORS_IN_A_ROW", 2)
    script = {"prompt_contains": [31], "token_ids": [], "request_error": "no such guide: NCCL"}
    engine = bench.engine([script, {"token_ids": [10]}], slots=4)
    for round_ in range(1, 4):
        for _ in range(3):
            assert "NCCL" in str(bench.ask([31]).wait().error)
        is_probed(bench, round_)
    assert bench.ask([1], max_tokens=2).wait().reason == "length"
    assert engine.load().in_flight == 0


def test_a_request_without_tokens_does_not_end_an_engine_that_works(bench: Bench) -> None:
    engine = bench.engine([{"prompt_contains": [31], "token_ids": [], "stalls": True}, {"token_ids": [10]}])
    # Without statistics, only the probes show that the engine works.
    bench.llm.engine.blocks.note_step = lambda *_: None
    stuck = bench.ask([31])
    is_probed(bench, 2)
    assert bench.ask([1], max_tokens=2).wait().reason == "length"
    assert not stuck.has_ended
    assert engine.load().in_flight == 1
    stuck.cancelled = True


def test_an_engine_whose_slots_are_taken_is_not_failed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm_watchdog, "PROBE_AFTER_SECONDS", 0)
    monkeypatch.setattr(trtllm_probe, "PROBE_SECONDS", 0.05)
    engine = bench.engine(context_length=ENDLESS, stall_seconds=0)
    others = [bench.ask([1]), bench.ask([2])]
    for other in others:
        other.wait_for_tokens()
    # The probes get no slot, but the others go on.
    monkeypatch.setattr(bench.llm.engine, "_slots", 0)
    is_probed(bench, 4)
    assert engine.load().in_flight == 2
    assert not any(other.has_ended for other in others)


@pytest.mark.parametrize("kind", ["AssertionError", "ValueError", "KeyError"])
def test_a_result_that_cannot_be_read_ends_only_its_own_request(bench: Bench, kind: str) -> None:
    script = {"prompt_contains": [31], "token_ids": [5], "result_error": kind}
    engine = bench.engine([script, {"token_ids": [10]}], context_length=ENDLESS)
    other = bench.ask([1])
    error = bench.ask([31]).wait().error
    assert error is not None
    assert error.reason == "ENGINE_FAILED"
    assert "could not be read" in str(error)
    until(lambda: bench.llm.engine.active == 1)
    other.cancelled = True
    assert other.wait().reason == "cancelled"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    assert engine.load().cancelled_total == 1


def test_an_error_of_another_thread_is_the_end_and_not_the_callers_fault(bench: Bench) -> None:
    engine = bench.engine()
    bench.llm.background_error = ValueError("the socket is closed")
    error = bench.ask([1]).wait().error
    assert error is not None
    assert error.reason == "ENGINE_FAILED"
    assert "the socket is closed" in str(error) or "not healthy" in str(error)
    failure(engine)
