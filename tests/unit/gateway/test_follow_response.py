"""The stream of a stored response: its end while the store is away."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.gateway.edge.exchange import Exchange
from services.gateway.errors import unavailable
from services.gateway.operations import follow_response
from services.gateway.record import RequestRecord
from services.gateway.stored_responses.store import StoredResponse
from services.runtime.messages.message import Message


class State:
    """Replies once, with two events of a response that goes on, and is away from then on."""

    def __init__(self) -> None:
        self.is_away = False

    async def find_current(self, response_id: str, *_: Any, **__: Any) -> StoredResponse:
        if self.is_away:
            raise unavailable(Message("store_away", field="store"))
        self.is_away = True
        events = ["event: one\ndata: {}\n\n", "event: two\ndata: {}\n\n"]
        return StoredResponse(response_id, "in_progress", {}, [], False, 2, events)


async def test_a_stream_whose_store_is_away_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_response, "AWAY_SECONDS", 0.0)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    record = RequestRecord("req", "GET")
    exchange = Exchange({"type": "http", "headers": [], "state": {"record": record}}, receive, send)
    state: Any = State()
    with exchange.cleanup:
        await follow_response.follow(exchange, state, "resp_1", "key", first=0, keep_alive=60)
    body = b"".join(message.get("body", b"") for message in sent)
    *_, last, end = body.decode().split("\n\n")
    assert end == "", "no final event follows, because the response goes on"
    assert last.startswith("event: error\n")
    error = orjson.loads(last.split("data: ")[1])
    assert (error["code"], error["sequence_number"]) == ("store_away", 2)
    assert "starting_after=1" in error["message"]
