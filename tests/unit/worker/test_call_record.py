from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.sampling import Sampling
from services.runtime.tracing.span import Span
from services.runtime.tracing.trace_context import CURRENT
from services.worker.call_record import CallRecord

REGISTRY = CollectorRegistry()
REQUESTS = Counter("calls", "Calls.", ["model", "outcome"], registry=REGISTRY)
SECONDS = Histogram("call_seconds", "Calls.", ["model"], registry=REGISTRY)


class Record(CallRecord):
    """Records the calls of its methods."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        super().__init__(
            "call",
            request_id="r1",
            model_id="m",
            requests=REQUESTS,
            seconds=SECONDS,
            tracer=tracer,
            method="Service/Call",
        )
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


@pytest.fixture
def _no_trace() -> Iterator[None]:
    yield
    CURRENT.set(None)


@pytest.mark.usefixtures("_no_trace")
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (None, "OK", None),
        (Failure(Reason.OVERLOADED, Message.verbatim("full")), "RESOURCE_EXHAUSTED", None),
        (Failure(Reason.ENGINE_FAILED, Message.verbatim("?")), "INTERNAL", "ENGINE_FAILED"),
        (KeyError("x"), "INTERNAL", "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED", None),
    ],
)
def test_a_traced_call_is_exported_and_faults_of_the_worker_always(
    error: BaseException | None, status: str, kind: str | None
) -> None:
    for ratio in (0.0, 1.0):
        # Otherwise the call would be a part of the trace before it.
        CURRENT.set(None)
        exported: list[Span] = []
        record = Record(Tracer(Sampling(ratio), 30.0, exported.extend))
        ending = contextlib.nullcontext() if error is None else pytest.raises(type(error))
        with ending, record:
            if error is not None:
                raise error
        assert len(exported) == (1 if ratio or kind else 0)
        for span in exported:
            assert (span.name, span.error) == ("Service/Call", kind)
            assert span.attributes["rpc.response.status_code"] == status
            assert span.attributes["vilix.request.id"] == "r1"
