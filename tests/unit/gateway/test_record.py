"""The record of a request, which logs and metrics read."""

from __future__ import annotations

import grpc
import pytest

from services.gateway.record import CLIENT_CLOSED_REQUEST, Outcome, RequestRecord, broken_off
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_is_an_outcome(code: grpc.StatusCode) -> None:
    assert str(Outcome(code.name)) == code.name


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_failure_is_an_outcome_of_a_stream(reason: Reason) -> None:
    code = Failure(reason, Message.verbatim("")).code.name
    assert str(broken_off(code)) == f"broken off: {code}"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0, "stopped"),
        (200, "complete"),
        (304, "complete"),
        (404, "rejected"),
        (CLIENT_CLOSED_REQUEST, "client gone"),
        (503, "failed"),
    ],
)
def test_without_a_noted_outcome_it_follows_from_the_status(status: int, outcome: str) -> None:
    record = RequestRecord("r", "GET", status=status)
    record.end(route="/readyz")
    assert record.outcome == outcome


def test_unknown_fields_are_not_logged() -> None:
    record = RequestRecord("r", "POST", status=200, stream=False, completion_tokens=0, outcome=Outcome.BUDGET)
    record.note_model("m" * 200, is_known=False)
    record.end(route="/api/chat/completions")
    assert record.fields() == {
        "request_id": "r",
        "method": "POST",
        "route": "/api/chat/completions",
        "status": 200,
        "duration_ms": round(record.seconds * 1000, 1),
        "outcome": "budget",
        "model": "m" * 128,
        "stream": False,
        "completion_tokens": 0,
    }
    assert record.model_label == "unknown"
