"""Requests of the Responses API, and the events of its streams."""

from __future__ import annotations

import json
from typing import Any

from tests.support.scripted_worker import MODEL, Step, content, finish, reasoning, started, usage

URL = "/v1/responses"
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
ANSWER: list[Step] = [[started(), reasoning("فکر")], [content("سلام\u200cها")], [content("!")], [finish(), usage()]]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "hi", **fields}


def read_events(text: str) -> list[dict[str, Any]]:
    """Return the bodies of a stream's events, and check how they are framed."""
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    assert frames.pop() == "data: [DONE]"
    bodies = []
    for frame in frames:
        name, data = frame.split("\n")
        bodies.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {bodies[-1]['type']}"
    return bodies


def check_sequence(bodies: list[dict[str, Any]], *, first: int = 0) -> None:
    """Check numbers and that exactly the last event is terminal."""
    assert [event["sequence_number"] for event in bodies] == list(range(first, first + len(bodies)))
    assert [event["type"] in TERMINAL for event in bodies] == [False] * (len(bodies) - 1) + [True]
