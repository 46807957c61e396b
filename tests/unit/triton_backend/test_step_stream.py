"""A stream of steps between engine and Triton, with a stand-in for Triton."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from services.inference.triton_backend.contract import Tokens, Usage
from services.worker.triton_kit.request_error import RequestError
from tests.support.call_counter import counted

STREAMS = 100
MOST_CALLS = 11
"""Calls of a token between an engine and Triton, with those that ask whether there is capacity or a cancellation."""
MODULES = ("services.inference.triton_backend.stream", "services.inference.triton_backend.step_stream")


class Triton:
    """The response sender of the request that opened the stream."""

    def __init__(self) -> None:
        self.responses: list[dict[str, Any]] = []
        self.ended = False
        self.gone = False
        self.failures = 0
        """The number of responses that cannot be sent."""

    def send(self, response: Any = None, flags: int = 0) -> None:
        assert not self.ended
        if self.failures:
            self.failures -= 1
            raise OSError("no shared memory")
        if response is not None:
            self.responses.append({name: values.tolist() for name, values in response})
        self.ended = bool(flags)

    def is_cancelled(self) -> bool:
        return self.gone


class Sender:
    """Sends when the test says so."""

    def __init__(self) -> None:
        self.scheduled: list[Any] = []

    def schedule(self, stream: Any) -> None:
        self.scheduled.append(stream)

    def run(self) -> None:
        scheduled, self.scheduled = self.scheduled, []
        for stream in scheduled:
            stream.send()


@pytest.fixture
def log() -> list[str]:
    """Return the lines that are written into Triton's log."""
    return []


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> Iterator[Any]:
    fake: Any = SimpleNamespace(
        InferenceResponse=list,
        Tensor=lambda name, values: (name, values),
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        TritonError=SimpleNamespace(),
        Logger=SimpleNamespace(log_error=log.append),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    for name in MODULES:
        sys.modules.pop(name, None)
    yield importlib.import_module(MODULES[1])
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def triton() -> Triton:
    return Triton()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def stream(module: Any, triton: Triton, sender: Sender) -> Any:
    return module.StepStream(triton, sender)


def test_the_tokens_of_all_requests_share_a_response(stream: Any, triton: Triton, sender: Sender) -> None:
    first, second = stream.open(1, window=None), stream.open(2, window=None)
    first.emit(Tokens([10]))
    second.emit(Tokens([20, 21]))
    first.finish("stop", Usage(), Tokens([11]))
    sender.run()
    (response,) = triton.responses
    assert response["step_requests"] == [1, 2, 1]
    assert response["step_counts"] == [1, 2, 1]
    assert response["token_ids"] == [10, 20, 21, 11]
    (end,) = map(json.loads, response["step_ends"])
    assert (end["request"], end["finish_reason"]) == (1, "stop")
    assert "logprobs" not in response


def test_a_token_takes_few_calls_in_triton(stream: Any, triton: Triton, sender: Sender) -> None:
    sinks = [stream.open(number, window=1024) for number in range(STREAMS)]
    token = Tokens([7])
    with counted() as calls:
        for sink in sinks:
            assert sink.has_capacity()
            assert not sink.is_cancelled()
            sink.emit(token)
        sender.run()
    assert triton.responses[0]["token_ids"] == [7] * STREAMS
    assert calls() <= MOST_CALLS * STREAMS, calls() / STREAMS


def test_log_probabilities_of_some_requests_are_told_apart(stream: Any, triton: Triton, sender: Sender) -> None:
    stream.open(1, window=None).emit(Tokens([10]))
    stream.open(2, window=None).emit(Tokens([20], [-0.5], [[(20, -0.5), (21, -1.0)]]))
    stream.open(3, window=None).emit(Tokens([30], [-2.0]))
    sender.run()
    (response,) = triton.responses
    assert response["logprobs"][1:] == [-0.5, -2.0]
    assert response["logprobs"][0] != response["logprobs"][0]
    assert response["step_top_counts"] == [-1, 2, -1]
    assert response["step_top_token_ids"] == [20, 21]


def test_a_reader_that_is_behind_pauses_only_its_request(stream: Any, sender: Sender) -> None:
    slow, other = stream.open(1, window=2), stream.open(2, window=2)
    for _ in range(2):
        slow.emit(Tokens([1]))
    sender.run()
    assert not slow.has_capacity()
    assert other.has_capacity()
    stream.acknowledge([(1, 1), (7, 1)])
    assert slow.has_capacity()


def test_a_cancellation_reaches_only_its_request(stream: Any) -> None:
    first, second = stream.open(1, window=None), stream.open(2, window=None)
    stream.cancel([1, 9])
    assert first.is_cancelled()
    assert not second.is_cancelled()


@pytest.mark.parametrize("how", ["the stream is cancelled", "the reader is gone"])
def test_the_end_of_the_reader_cancels_all_requests_and_ends_the_stream(
    stream: Any, triton: Triton, sender: Sender, how: str
) -> None:
    sink = stream.open(1, window=None)
    if how == "the reader is gone":
        triton.gone = True
        assert stream.look()
    else:
        stream.cancel()
        sender.run()
    assert sink.is_cancelled()
    assert not triton.ended, "the engine still works on the request"
    sink.finish("cancelled", Usage())
    sender.run()
    assert triton.ended
    assert triton.responses == []
    assert not stream.look()


def test_an_idle_stream_ends_and_takes_no_request_any_more(
    module: Any, stream: Any, triton: Triton, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = stream.open(1, window=None)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0)
    assert stream.look(), "a request runs"
    sink.finish("stop", Usage())
    sender.run()
    assert not stream.look()
    assert triton.ended
    with pytest.raises(RequestError) as caught:
        stream.open(2, window=None)
    assert caught.value.reason == "STREAM_ENDED"


def test_a_number_in_use_is_rejected_and_can_be_used_after_the_end(stream: Any, sender: Sender) -> None:
    sink = stream.open(1, window=None)
    with pytest.raises(RequestError):
        stream.open(1, window=None)
    sink.fail(RequestError("ENGINE_FAILED", "engine_failed", reason="a test"))
    sender.run()
    stream.open(1, window=None)


def test_a_failure_of_the_engine_is_in_tritons_log_with_the_requests_id(stream: Any, log: list[str]) -> None:
    stream.open(1, window=None, name="req-1.0.x-7").fail(RequestError("OVERLOADED", "engine_failed", reason="full"))
    assert log == []
    stream.open(2, window=None, name="req-2.0.x-8").fail(RequestError("ENGINE_FAILED", "engine_failed", reason="why"))
    (line,) = log
    assert line.startswith("request 'req-2.0.x-8': ENGINE_FAILED")
    assert "why" in line


def test_a_step_that_cannot_be_sent_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch, module: Any, stream: Any, triton: Triton, sender: Sender
) -> None:
    """Answers with a gap would look complete."""
    monkeypatch.setattr(module, "error_response", lambda error: [("error", Text(str(error)))])
    sink = stream.open(1, window=None)
    sink.emit(Tokens([10]))
    triton.failures = 1
    with pytest.raises(OSError, match="shared memory"):
        sender.run()
    assert "ENGINE_FAILED" in triton.responses[-1]["error"]
    assert triton.ended
    assert sink.is_cancelled()
    with pytest.raises(RequestError, match="STREAM_ENDED"):
        stream.open(2, window=None)


class Text(str):
    """A text as the stand-in reads tensors."""

    __slots__ = ()

    def tolist(self) -> str:
        return str(self)
