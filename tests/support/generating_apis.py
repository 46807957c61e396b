"""The APIs that generate, so that a test can make the same requests by each of them and read all their streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

Event = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Api:
    """An API: how a request is written, and what the events of its streams mean."""

    name: str
    path: str
    """The path, without the prefix."""
    question: Callable[[str], Mapping[str, Any]]
    """Returns the fields for a question."""
    token_limit: str
    """The field that limits the tokens of an answer."""
    text_of: Callable[[Event], str]
    """Returns the text of an answer that an event adds."""
    finish_of: Callable[[Event], str | None]
    """Returns the reason for which an answer has ended, if an event states one."""
    error_of: Callable[[Event], Any]
    """Returns the error that an event reports, if any."""
    finished: str
    """The reason of an answer that is whole."""
    cut: str
    """The reason of an answer that a limit of tokens has ended."""
    last: str
    """The type of the event that ends regular streams only."""
    unavailable: Mapping[str, str]
    """Fields of the error of a service that is unavailable."""
    usage_names: tuple[str, str]
    """The names of the tokens of prompt and answer in `usage`."""
    required: Mapping[str, Any] = field(default_factory=dict)
    """Fields without which a request is not valid."""

    def body(self, text: str, model: str, *, tokens: int | None = None, **fields: Any) -> dict[str, Any]:
        """Return the body of a request."""
        limit = {} if tokens is None else {self.token_limit: tokens}
        return {"model": model, **self.required, **self.question(text), **limit, **fields}


def event_of(line: str) -> Event | None:
    """Return the event in a line of a stream, if the line has one."""
    data = line.removeprefix("data: ")
    if data == line:
        return None
    return {"type": "[DONE]"} if data == "[DONE]" else dict(orjson.loads(data))


def _chat(text: str) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _choices(event: Event) -> list[Mapping[str, Any]]:
    return event.get("choices") or []


CHAT: Final = Api(
    name="chat",
    path="/chat/completions",
    question=_chat,
    token_limit="max_tokens",
    text_of=lambda event: "".join(choice["delta"].get("content") or "" for choice in _choices(event)[:1]),
    finish_of=lambda event: next((choice["finish_reason"] for choice in _choices(event)), None),
    error_of=lambda event: event.get("error"),
    finished="stop",
    cut="length",
    last="[DONE]",
    unavailable={"type": "service_unavailable_error"},
    usage_names=("prompt_tokens", "completion_tokens"),
)
RESPONSES: Final = Api(
    name="responses",
    path="/responses",
    question=lambda text: {"input": text},
    token_limit="max_output_tokens",
    text_of=lambda event: event["delta"] if event.get("type") == "response.output_text.delta" else "",
    finish_of=lambda event: (
        event["response"]["status"] if event["type"] in ("response.completed", "response.incomplete") else None
    ),
    error_of=lambda event: event if event["type"] == "error" else None,
    finished="completed",
    cut="incomplete",
    last="response.completed",
    unavailable={"code": "server_error"},
    usage_names=("input_tokens", "output_tokens"),
)
MESSAGES: Final = Api(
    name="messages",
    path="/messages",
    question=_chat,
    token_limit="max_tokens",
    text_of=lambda event: event["delta"].get("text", "") if event["type"] == "content_block_delta" else "",
    finish_of=lambda event: event["delta"]["stop_reason"] if event["type"] == "message_delta" else None,
    error_of=lambda event: event["error"] if event["type"] == "error" else None,
    finished="end_turn",
    cut="max_tokens",
    last="message_stop",
    unavailable={"type": "overloaded_error"},
    usage_names=("input_tokens", "output_tokens"),
    # It is reduced to what the context of the model has.
    required={"max_tokens": 10**9},
)
APIS: Final = (CHAT, RESPONSES, MESSAGES)
