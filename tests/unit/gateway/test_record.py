"""The record of a request, which logs and metrics read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram

from services.gateway.record import CLIENT_CLOSED_REQUEST, Outcome, RequestRecord
from services.gateway.routing.failures import outcome_of_failure
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

DOCUMENT = Path(__file__).parents[3] / "docs" / "keys.md"


def test_keys_md_lists_every_outcome() -> None:
    table = DOCUMENT.read_text().partition("| `outcome` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == list(Outcome)


@pytest.mark.parametrize("length", [5, 118, 119, 128])
def test_an_exemplar_has_at_most_the_characters_that_openmetrics_allows(length: int) -> None:
    exemplar = RequestRecord("r" * length, "POST").exemplar()
    assert exemplar == ({"request_id": "r" * length} if length <= 118 else None)
    Histogram("seconds", "A test.", registry=CollectorRegistry()).observe(1, exemplar)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.INVALID_ARGUMENT, Outcome.REJECTED),
        (Reason.MODEL_NOT_FOUND, Outcome.REJECTED),
        (Reason.OVERLOADED, Outcome.REJECTED),
        (Reason.MODEL_UNAVAILABLE, Outcome.BROKEN_OFF),
        (Reason.TIMEOUT, Outcome.BROKEN_OFF),
        (Reason.INTERNAL, Outcome.BROKEN_OFF),
    ],
)
def test_a_workers_failure_is_a_rejection_if_the_caller_gets_a_4xx(reason: Reason, outcome: Outcome) -> None:
    assert outcome_of_failure(Failure(reason, Message.verbatim("?"))) is outcome


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
    record = RequestRecord("r", "POST", status=200, stream=False, completion_tokens=0, outcome=Outcome.BROKEN_OFF)
    record.worker_status = "INTERNAL"
    record.note_model("m" * 200, is_known=False)
    record.end(route="/api/chat/completions")
    assert record.fields() == {
        "request_id": "r",
        "method": "POST",
        "route": "/api/chat/completions",
        "status": 200,
        "duration_ms": round(record.seconds * 1000, 1),
        "outcome": "broken off",
        "worker_status": "INTERNAL",
        "model": "m" * 128,
        "stream": False,
        "completion_tokens": 0,
    }
    assert record.model_label == "unknown"
