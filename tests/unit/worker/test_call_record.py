from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.call_record import CallRecord

REGISTRY = CollectorRegistry()
REQUESTS = Counter("calls", "Calls.", ["model", "outcome"], registry=REGISTRY)
SECONDS = Histogram("call_seconds", "Calls.", ["model"], registry=REGISTRY)


class Record(CallRecord):
    """Records the calls of its methods."""

    def __init__(self) -> None:
        super().__init__("call", request_id="r1", model_id="m", requests=REQUESTS, seconds=SECONDS)
        self.calls: list[object] = []

    def _begin(self) -> None:
        self.calls.append("begin")

    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        self.calls.append(succeeded)
        return {"tokens": 7}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (Failure(Reason.OVERLOADED, Message.verbatim("full")), "OVERLOADED"),
        (KeyError("x"), "INTERNAL"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_a_call_is_counted_and_logged_once_however_it_ends(
    caplog: pytest.LogCaptureFixture, error: BaseException | None, outcome: str
) -> None:
    caplog.set_level(logging.INFO)
    before = REGISTRY.get_sample_value("calls_total", {"model": "m", "outcome": outcome}) or 0
    record = Record()
    ending = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with ending, record:
        if error is not None:
            raise error
    assert record.calls == ["begin", error is None]
    (line,) = [vars(each) for each in caplog.records if each.getMessage() == "call"]
    assert {name: line[name] for name in ("request_id", "model", "outcome", "tokens")} == {
        "request_id": "r1",
        "model": "m",
        "outcome": outcome,
        "tokens": 7,
    }
    assert line["seconds"] >= 0
    assert REGISTRY.get_sample_value("calls_total", {"model": "m", "outcome": outcome}) == before + 1
