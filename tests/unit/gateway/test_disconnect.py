"""Disconnects of clients, as the server reports them without a task that waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.gateway.disconnect import ClientGoneError, Disconnect
from services.gateway.edge.served_request import ServedRequest


def served(cycle: Any) -> tuple[ServedRequest, Disconnect]:
    request = ServedRequest(cycle)

    async def receive() -> Any:
        raise AssertionError

    return request, Disconnect(receive, request)


def cycle(*, disconnected: bool = False) -> Any:
    flow = SimpleNamespace(read_paused=True)
    flow.resume_reading = lambda: setattr(flow, "read_paused", False)
    return SimpleNamespace(disconnected=disconnected, more_body=False, body=b"", flow=flow)


def test_a_disconnect_stops_the_work_once() -> None:
    request, disconnect = served(cycle())
    stopped: list[bool] = []
    disconnect.listen()
    disconnect.on_disconnect(lambda: stopped.append(True))
    disconnect.check()
    request.disconnected()
    request.disconnected()
    assert stopped == [True]
    with pytest.raises(ClientGoneError):
        disconnect.check()


def test_a_disconnect_before_the_work_began_stops_it() -> None:
    _, disconnect = served(cycle(disconnected=True))
    disconnect.listen()
    stopped: list[bool] = []
    disconnect.on_disconnect(lambda: stopped.append(True))
    assert stopped == [True]


def test_a_disconnect_after_the_request_has_ended_stops_nothing() -> None:
    request, disconnect = served(cycle())
    stopped: list[bool] = []
    disconnect.listen()
    disconnect.on_disconnect(lambda: stopped.append(True))
    disconnect.close()
    request.disconnected()
    assert not stopped


def test_a_connection_whose_reading_was_paused_is_read_while_the_request_is_served() -> None:
    state = cast(Any, cycle())
    _, disconnect = served(state)
    disconnect.listen()
    assert not state.flow.read_paused


@pytest.mark.parametrize(
    ("more_body", "disconnected", "size"), [(False, False, 0), (True, False, None), (False, True, None)]
)
def test_only_a_whole_body_is_complete(more_body: bool, disconnected: bool, size: int | None) -> None:
    state = cycle(disconnected=disconnected)
    state.more_body = more_body
    assert ServedRequest(state).complete_body_bytes == size
