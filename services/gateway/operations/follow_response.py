"""Sends the stored events of a response, from any of them on, until it has ended: from every gateway."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from services.gateway.dialects import sse
from services.gateway.dialects.error_text import error_text
from services.gateway.dialects.openai_responses.stream import DONE, KEEP_ALIVE
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError, not_found, unavailable
from services.gateway.operations.response_state import ResponseState
from services.gateway.stored_responses.lost_response import event_frame
from services.gateway.stored_responses.store import MOST_EVENTS
from services.runtime.messages.message import Message

POLL_SECONDS: Final = 0.1
AWAY_SECONDS: Final = 10.0
"""Seconds for which a stream waits for a store that is away."""


async def follow(
    exchange: Exchange, state: ResponseState, response_id: str, owner: str, *, first: int, keep_alive: float
) -> None:
    """Send the events from number `first` on, and end after the last one. The response exists.

    An end that is not exactly reproducible, because events that were sent had not been stored when their gateway died,
    is sent too.
    """
    exchange.disconnect.listen()
    headers = {**sse.HEADERS}
    await exchange.response.start(200, headers)
    options = {"most": MOST_EVENTS, "with_document": False}
    sent_at, reached_at = time.monotonic(), time.monotonic()
    while not exchange.disconnect.happened:
        try:
            response = await state.find_current(response_id, owner, **options, first=first)
        except ApiError:
            if time.monotonic() - reached_at > AWAY_SECONDS:
                # Without the final event: the response itself goes on, and the client can continue here later.
                await exchange.response.finish(_interrupted(first))
                return
            response = None
        else:
            reached_at = time.monotonic()
            if response is None:
                await exchange.response.send(_deleted(response_id, first))
                break
        if response is not None and response.has_ended and first > response.length:
            last = await state.find(response_id, owner, first=response.length - 1, most=1, with_document=False)
            await exchange.response.send("".join(last.events if last is not None else ()).encode())
            break
        if response is not None and response.events:
            await exchange.response.send("".join(response.events).encode())
            first, sent_at = first + len(response.events), time.monotonic()
        if response is not None and response.has_ended and first >= response.length:
            break
        if time.monotonic() - sent_at >= keep_alive:
            await exchange.response.send(KEEP_ALIVE)
            sent_at = time.monotonic()
        if response is None or not response.events:
            await asyncio.sleep(POLL_SECONDS)
    await exchange.response.finish(DONE)


def _interrupted(number: int) -> bytes:
    """Return the event that ends the stream while the store is away."""
    error = unavailable(Message("response_stream_interrupted", value=number - 1))
    fields = {"code": "store_away", "message": error_text(error).text, "param": None}
    return event_frame("error", number, fields)


def _deleted(response_id: str, number: int) -> bytes:
    """Return the events that end the stream of a response that was deleted or has expired meanwhile."""
    gone = not_found(Message("response_not_found", value=repr(response_id)))
    error = {"code": "response_not_found", "message": error_text(gone).text}
    response = {"id": response_id, "object": "response", "status": "failed", "error": error, "output": []}
    return event_frame("error", number, {**error, "param": None}) + event_frame(
        "response.failed", number + 1, {"response": response}
    )
