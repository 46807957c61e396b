"""What images cost the engine trtllm, and what happens to them when nobody waits or the engine has gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines import trtllm
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.pictures import encoded
from tests.support.trtllm_engine import SECONDS, Bench, Reader, read, until

old = pytest.mark.parametrize("version", ["1.2.1"])
new = pytest.mark.parametrize("version", ["1.3.0rc29"])
IMAGE = encoded("PNG", 56, 56)


def look(engine: trtllm.TrtllmEngine, *images: bytes) -> Reader:
    answer = Reader()
    engine.submit(Request(read({"max_tokens": 1}), [stand_in.IMAGE_TOKEN] * len(images), images=images), answer)
    return answer


class SlowEyes:
    """Decoding that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Event()

    def decode(self, request: Request, is_wanted: Any) -> list[Any]:
        self.begun += 1
        assert self.may_end.wait(2 * SECONDS)
        if not is_wanted():
            raise RequestError("ENGINE_FAILED", "nobody waits")
        return []


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowEyes]:
    slow = SlowEyes()
    monkeypatch.setattr(trtllm, "decode", slow.decode)
    yield slow
    slow.may_end.set()


def test_a_request_that_is_cancelled_while_its_images_are_decoded_gives_its_slot_back(
    bench: Bench, eyes: SlowEyes
) -> None:
    engine = bench.engine(slots=1, architecture=stand_in.QWEN25_VL)
    answer = look(engine, IMAGE)
    until(lambda: eyes.begun == 1)
    answer.cancelled = True
    assert answer.wait().reason == "cancelled"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    assert len(bench.llm.requests) == 1
    eyes.may_end.set()


def test_two_requests_images_are_decoded_at_once_and_no_more(bench: Bench, eyes: SlowEyes) -> None:
    engine = bench.engine(slots=8, architecture=stand_in.QWEN25_VL)
    answers = [look(engine, IMAGE) for _ in range(5)]
    until(lambda: eyes.begun == 2)
    answers[4].cancelled = True
    assert answers[4].wait().reason == "cancelled"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    assert eyes.begun == 2
    eyes.may_end.set()
    for answer in answers[:4]:
        answer.wait()
    # Nobody waited for the last one's.
    assert eyes.begun == 4


@new
def test_other_answers_go_on_while_the_engine_reads_images(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL, context_length=100_000)
    other = bench.ask([1])
    other.wait_for_tokens()
    expanded = bench.llm._expanded

    def slowly(*arguments: Any) -> Any:
        seen = len(other.token_ids)
        until(lambda: len(other.token_ids) > seen + 5)
        return expanded(*arguments)

    monkeypatch.setattr(bench.llm, "_expanded", slowly)
    answer = look(engine, IMAGE).wait()
    assert answer.reason == "length"
    assert answer.usage.prompt_tokens == 4
    other.cancelled = True


@old
def test_an_engine_that_has_stopped_by_itself_is_noticed_by_a_request_with_images(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    bench.llm.engine.dead = True
    assert "must be restarted: RuntimeError: LLM is shutting down" in str(look(engine, IMAGE).wait().error)
    with pytest.raises(RequestError, match="must be restarted"):
        engine.load()


def test_an_image_that_the_engine_cannot_read_is_tried_on_an_engine_that_lives(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    error = look(engine, encoded("PNG", 9, 9)).wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    assert look(engine, IMAGE).wait().reason == "length"


def test_a_busy_engine_is_not_taken_for_a_dead_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm, "PROBE_SECONDS", 0.01)
    engine = bench.engine([{"token_ids": [5], "stalls": True}], architecture=stand_in.QWEN25_VL)
    # Its only other slot is the probe's, which brings nothing.
    monkeypatch.setattr(bench.llm.engine, "_slots", 0)
    error = look(engine, encoded("PNG", 9, 9)).wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    until(lambda: engine.load().in_flight == 0)
