"""Ends a response whose gateway has died, and one that its owner cancels, from any gateway."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from services.gateway.stored_responses.store import MOST_EVENTS, Budgets, ResponseStore, StoredResponse

_DONE: Final = "event: response.output_item.done\n"
"""The beginning of the events whose items are complete."""


async def end_lost(
    store: ResponseStore, response: StoredResponse, owner: str, budgets: Budgets, error: dict[str, str]
) -> None:
    """End a response that is lost with `error`, after exactly what was stored of it. Does nothing if it is not lost."""
    length, done = await _done_items(store, response, owner)
    document = {**response.document, "status": "failed", "output": done, "error": error}
    frames = [
        event_frame("error", length, {"code": error["code"], "message": error["message"], "param": None}),
        event_frame("response.failed", length + 1, {"response": document}),
    ]
    shorter = shorter_end("response.failed", length, document)
    await store.end(
        response.id, budgets, length=length, only_lost=True, document=document, events=frames, shorter=shorter
    )


async def cancel(store: ResponseStore, response: StoredResponse, owner: str, budgets: Budgets) -> bool:
    """Cancel a response. Return whether it was; another attempt may be needed while it is generated."""
    length, done = await _done_items(store, response, owner)
    document = {**response.document, "status": "cancelled", "output": done}
    frames = [event_frame("response.incomplete", length, {"response": document})]
    shorter = shorter_end("response.incomplete", length, document)
    return await store.end(
        response.id, budgets, length=length, only_lost=False, document=document, events=frames, shorter=shorter
    )


def shorter_end(kind: str, number: int, document: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the document and the event of an end for which there is no space: without output.

    The document then needs as much as before, and the event has nothing but the id, the status and the error.
    """
    named = {name: document.get(name) for name in ("id", "object", "status", "error")}
    return {**document, "output": []}, event_frame(kind, number, {"response": {**named, "output": []}})


async def _done_items(store: ResponseStore, response: StoredResponse, owner: str) -> tuple[int, list[Any]]:
    """Return the number of a response's events, and its items that are complete."""
    length, done = 0, list[str]()
    while True:
        read = await store.read(response.id, owner, first=length, most=MOST_EVENTS, with_document=False)
        if read is None or not read.events:
            return length, await asyncio.to_thread(_items, done)
        length += len(read.events)
        done += [frame for frame in read.events if frame.startswith(_DONE)]


def _items(frames: list[str]) -> list[Any]:
    return [body_of(frame)["item"] for frame in frames]


def body_of(frame: str) -> dict[str, Any]:
    """Return the JSON body of a stored event."""
    body: dict[str, Any] = orjson.loads(frame.split("\ndata: ", 1)[1])
    return body


def event_frame(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    """Return an event as it is sent and stored."""
    body = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)
