"""The content of a request and its response as attributes of a span, for operators who have switched that on.

Their form is that of OpenTelemetry's conventions for generative AI: messages with parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from services.gateway.record import Content
from services.runtime.telemetry import without_keys
from services.runtime.tracing.span import Value

MOST_TEXT: Final = 4_000
"""The most characters of one text."""
MOST_MESSAGES: Final = 16_000
"""The most characters of all messages. The oldest ones are left out, and of a newest one that is longer, last parts."""
_FRAME: Final = 100
"""More than the characters of a message around its parts."""


def content_attributes(content: Content) -> dict[str, Value | None]:
    """Return the messages of a request, and those that were generated."""
    fields = content.fields()
    messages = fields["messages"]
    if not isinstance(messages, list):
        messages = [messages]
    return {
        "gen_ai.input.messages": _rendered([_input(message) for message in messages]),
        "gen_ai.output.messages": _rendered([_output(choice) for choice in fields["choices"]]),
    }


def _input(message: Any) -> dict[str, Any]:
    """Return a message of the worker's request, or one of its prompts."""
    if isinstance(message, str):
        return {"role": "user", "parts": [_text(message)]}
    parts = [_text(part["text"]) if "text" in part else {"type": next(iter(part), "")} for part in _parts(message)]
    role = str(message.get("role", "")).removeprefix("ROLE_").lower()
    return {"role": role, "parts": [*parts, *_calls(message)]}


def _parts(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    parts: Sequence[Mapping[str, Any]] = message.get("content", ())
    return parts


def _output(choice: Mapping[str, Any]) -> dict[str, Any]:
    reasoning = choice.get("reasoning_content")
    parts = [{**_text(reasoning), "type": "reasoning"}] if reasoning else []
    if choice["content"]:
        parts.append(_text(choice["content"]))
    return {"role": "assistant", "parts": [*parts, *_calls(choice)]}


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": "tool_call",
            "id": call.get("id"),
            "name": call.get("name"),
            "arguments": _cut(call.get("arguments_json", "")),
        }
        for call in message.get("tool_calls", ())
    ]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": _cut(text)}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"


def _rendered(messages: Sequence[Mapping[str, Any]]) -> str:
    rendered: list[str] = []
    left = MOST_MESSAGES
    for message in reversed(messages):
        text = _dump(message)
        left -= len(text)
        if left < 0:
            if not rendered:
                rendered = [_dump(_shortened(message))]
            break
        rendered.insert(0, text)
    return without_keys(f"[{', '.join(rendered)}]")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shortened(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the newest message with as many of its parts as fit."""
    ends = accumulate(len(_dump(part)) + len(", ") for part in message["parts"])
    count = sum(end <= MOST_MESSAGES - _FRAME for end in ends)
    return {**message, "parts": message["parts"][:count] or [_text("…")]}
