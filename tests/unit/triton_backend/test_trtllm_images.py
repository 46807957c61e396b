"""Images of requests to the engine trtllm: their threads, cancellation, and errors while they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines import trtllm, trtllm_inputs, trtllm_probe
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.pictures import encoded
from tests.support.trtllm_engine import SECONDS, Bench, Reader, read, until

old = pytest.mark.parametrize("version", ["1.2.1"])
new = pytest.mark.parametrize("version", ["1.3.0rc29"])
IMAGE = encoded("PNG", 56, 56)


def ask_about(engine: trtllm.TrtllmEngine, *images: bytes) -> Reader:
    reader = Reader()
    engine.submit(Request(read({"max_tokens": 1}), [stand_in.IMAGE_TOKEN] * len(images), images=images), reader)
    return reader


class SlowDecoder:
    """Decodes images once `may_end` is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Event()

    def decode(self, request: Request, is_wanted: Any) -> list[Any]:
        self.begun += 1
        assert self.may_end.wait(2 * SECONDS)
        if not is_wanted():
            raise RequestError("ENGINE_FAILED", "engine_failed", reason="not wanted any more")
        return []


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDecoder]:
    slow = SlowDecoder()
    monkeypatch.setattr(trtllm_inputs, "decode", slow.decode)
    yield slow
    slow.may_end.set()


def test_a_request_cancelled_while_its_images_are_decoded_releases_its_slot(bench: Bench, decoder: SlowDecoder) -> None:
    engine = bench.engine(slots=1, architecture=stand_in.QWEN25_VL)
    reader = ask_about(engine, IMAGE)
    until(lambda: decoder.begun == 1)
    reader.cancelled = True
    assert reader.wait().reason == "cancelled"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    assert len(bench.llm.requests) == 1
    decoder.may_end.set()


def test_the_images_of_two_requests_are_decoded_at_once(bench: Bench, decoder: SlowDecoder) -> None:
    engine = bench.engine(slots=8, architecture=stand_in.QWEN25_VL)
    readers = [ask_about(engine, IMAGE) for _ in range(5)]
    until(lambda: decoder.begun == 2)
    readers[4].cancelled = True
    assert readers[4].wait().reason == "cancelled"
    assert bench.ask([1], max_tokens=1).wait().reason == "length"
    assert decoder.begun == 2
    decoder.may_end.set()
    for reader in readers[:4]:
        reader.wait()
    # The images of the cancelled request were not decoded.
    assert decoder.begun == 4


@new
def test_other_requests_go_on_while_the_engine_reads_images(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL, context_length=100_000)
    other = bench.ask([1])
    other.wait_for_tokens()
    expanded = bench.llm._expanded

    def slowly(*arguments: Any) -> Any:
        seen = len(other.token_ids)
        until(lambda: len(other.token_ids) > seen + 5)
        return expanded(*arguments)

    monkeypatch.setattr(bench.llm, "_expanded", slowly)
    reader = ask_about(engine, IMAGE).wait()
    assert reader.reason == "length"
    assert reader.usage.prompt_tokens == 4
    other.cancelled = True


@old
def test_a_request_with_images_detects_an_engine_that_has_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtllm, "HEALTH_CHECK_SECONDS", 60)
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    bench.llm.engine.dead = True
    assert "must be restarted: RuntimeError: LLM is shutting down" in str(ask_about(engine, IMAGE).wait().error)
    with pytest.raises(RequestError, match="must be restarted"):
        engine.load()


def test_an_image_that_the_engine_cannot_read_does_not_end_the_engine(bench: Bench) -> None:
    engine = bench.engine(architecture=stand_in.QWEN25_VL)
    error = ask_about(engine, encoded("PNG", 9, 9)).wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    assert ask_about(engine, IMAGE).wait().reason == "length"


def test_a_busy_engine_is_not_taken_for_a_dead_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm_probe, "PROBE_SECONDS", 0.01)
    engine = bench.engine([{"token_ids": [5], "stalls": True}], architecture=stand_in.QWEN25_VL)
    # The probe gets no slot, and therefore no result.
    monkeypatch.setattr(bench.llm.engine, "_slots", 0)
    error = ask_about(engine, encoded("PNG", 9, 9)).wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    until(lambda: engine.load().in_flight == 0)
