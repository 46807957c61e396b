"""A request waits in the line until it has its lease, and then asks no more: a second lease would be given back by nobody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway import admission
from services.gateway.admission import Waiting
from services.gateway.limits import Decision


class Line:
    """In place of the leases: a request is let in when it has asked so often."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.leases: list[object] = []

    def new_hold(self, _: str) -> object:
        return object()

    async def decide(self, *_: object) -> Decision:
        self.turns -= 1
        return Decision(seconds=0, scopes={}, ahead=max(self.turns, 0) if self.turns > 0 else None)

    def admitted(self, *_: object) -> object:
        self.leases.append(object())
        return self.leases[-1]


class Request:
    state = SimpleNamespace(request_id="r")

    async def is_disconnected(self) -> bool:
        return False


@pytest.mark.parametrize("turns", [1, 2, 3, 6])
async def test_who_is_let_in_asks_no_more(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.001)
    monkeypatch.setattr(admission, "headers", lambda *_: {})
    monkeypatch.setattr(admission, "replace", lambda subject, **_: subject)
    line: Any = Line(turns)
    request: Any = Request()
    subject: Any = SimpleNamespace(queue_seconds=60, proof=None)
    waiting = Waiting(request, line, subject, SimpleNamespace())  # type: ignore[arg-type]  # nobody looks into it
    await waiting.ask()
    assert await waiting.get() is line.leases[0]
    assert len(line.leases) == 1
