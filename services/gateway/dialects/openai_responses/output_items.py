"""The items of a response's output while they are generated: each writes its own events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final, Protocol

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_objects import logprob_entries
from services.gateway.dialects.openai_responses.response import Seal, custom_input
from services.gateway.dialects.openai_responses.tool_names import OfferedTool


class Events(Protocol):
    """Takes the events of items."""

    def emit(self, kind: str, fields: dict[str, Any]) -> None:
        """Encode an event."""
        ...

    def put_text(self, prefix: bytes, text: str) -> None:
        """Encode an event of a delta: `prefix` is its beginning up to the text."""
        ...


class OpenItem(ABC):
    """An item that is being generated."""

    def __init__(self, item_id: str, index: int) -> None:
        """Begin the item at `index` of the output."""
        self._id: Final = item_id
        self._place: Final[dict[str, Any]] = {"item_id": item_id, "output_index": index}
        self._index: Final = index
        self._texts: Final[list[str]] = []

    def open(self, events: Events) -> None:
        """Write the events that begin the item."""
        events.emit("response.output_item.added", {"output_index": self._index, "item": self._item("in_progress")})

    def close(self, events: Events, status: str) -> dict[str, Any]:
        """Write the events that end the item, and return it."""
        self._close_parts(events)
        item = self._item(status)
        events.emit("response.output_item.done", {"output_index": self._index, "item": item})
        return item

    @property
    def _text(self) -> str:
        return "".join(self._texts)

    @abstractmethod
    def _item(self, status: str) -> dict[str, Any]:
        """Return the item: empty while it is in progress."""

    @abstractmethod
    def _close_parts(self, events: Events) -> None:
        """Write the events that end the item's parts."""


class MessageItem(OpenItem):
    """A message, with one part of text."""

    def __init__(self, item_id: str, index: int) -> None:
        """Begin a message."""
        super().__init__(item_id, index)
        self._place["content_index"] = 0
        self._logprobs: Final[list[dict[str, Any]]] = []
        self._prefix: Final = _prefix("response.output_text.delta", {**self._place, "logprobs": []})

    def open(self, events: Events) -> None:
        """Begin with an empty text."""
        super().open(events)
        events.emit("response.content_part.added", {**self._place, "part": self._part()})

    def add_text(self, events: Events, text: str, logprobs: Iterable[pb.TokenLogprob]) -> None:
        """Add text with the log probabilities of its tokens."""
        self._texts.append(text)
        if entries := logprob_entries(logprobs):
            self._logprobs.extend(entries)
            events.emit("response.output_text.delta", {**self._place, "delta": text, "logprobs": entries})
        else:
            events.put_text(self._prefix, text)

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": self._logprobs}

    def _close_parts(self, events: Events) -> None:
        events.emit("response.output_text.done", {**self._place, "text": self._text, "logprobs": self._logprobs})
        events.emit("response.content_part.done", {**self._place, "part": self._part()})

    def _item(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self._part()]
        return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}


class ReasoningItem(OpenItem):
    """Reasoning, as it is or in the place of its summary."""

    def __init__(self, item_id: str, index: int, *, as_summary: bool, seal: Seal | None) -> None:
        """Begin reasoning, which is also sent sealed if there is a `seal`."""
        super().__init__(item_id, index)
        self._as_summary: Final = as_summary
        self._seal: Final = seal
        self._sealed: str | None = None
        self._part_kind: Final = "response.reasoning_summary_part" if as_summary else "response.content_part"
        self._kind: Final = "response.reasoning_summary_text" if as_summary else "response.reasoning_text"
        self._place["summary_index" if as_summary else "content_index"] = 0
        self._prefix: Final = _prefix(f"{self._kind}.delta", self._place)

    def open(self, events: Events) -> None:
        """Begin with an empty part."""
        super().open(events)
        events.emit(f"{self._part_kind}.added", {**self._place, "part": self._part()})

    def add(self, events: Events, text: str) -> None:
        """Add text."""
        self._texts.append(text)
        events.put_text(self._prefix, text)

    def _part(self) -> dict[str, Any]:
        return {"type": "summary_text" if self._as_summary else "reasoning_text", "text": self._text}

    def _close_parts(self, events: Events) -> None:
        events.emit(f"{self._kind}.done", {**self._place, "text": self._text})
        events.emit(f"{self._part_kind}.done", {**self._place, "part": self._part()})
        if self._seal is not None:
            self._sealed = self._seal(self._text)

    def _item(self, status: str) -> dict[str, Any]:
        parts = [] if status == "in_progress" else [self._part()]
        item: dict[str, Any] = {"id": self._id, "type": "reasoning", "status": status, "summary": []}
        if self._as_summary:
            item["summary"] = parts
        else:
            item["content"] = parts
        if self._sealed is not None:
            item["encrypted_content"] = self._sealed
        return item


class FunctionCallItem(OpenItem):
    """A call of a function."""

    def __init__(self, item_id: str, index: int, call_id: str, name: str, tool: OfferedTool | None) -> None:
        """Begin a call of the function `name`, which stands for `tool`."""
        super().__init__(item_id, index)
        self._call: Final[dict[str, Any]] = {"call_id": call_id, "name": name if tool is None else tool.name}
        if tool is not None and tool.namespace:
            self._call["namespace"] = tool.namespace
        self._prefix: Final = _prefix("response.function_call_arguments.delta", self._place)

    def add(self, events: Events, text: str) -> None:
        """Add a part of the arguments."""
        self._texts.append(text)
        events.put_text(self._prefix, text)

    def _close_parts(self, events: Events) -> None:
        arguments = {**self._place, "name": self._call["name"], "arguments": self._text}
        events.emit("response.function_call_arguments.done", arguments)

    def _item(self, status: str) -> dict[str, Any]:
        item = {"id": self._id, "type": "function_call", "status": status, **self._call}
        return {**item, "arguments": "" if status == "in_progress" else self._text}


class CustomCallItem(OpenItem):
    """A call of a custom tool. Its input is a field of the arguments, and is sent when those are complete."""

    def __init__(self, item_id: str, index: int, call_id: str, tool: OfferedTool, *, is_text: bool = False) -> None:
        """Begin a call of `tool`. With `is_text`, what is added is the input itself."""
        super().__init__(item_id, index)
        self._call: Final[dict[str, Any]] = {"call_id": call_id, "name": tool.name}
        if tool.namespace:
            self._call["namespace"] = tool.namespace
        self._is_text: Final = is_text
        self._prefix: Final = _prefix("response.custom_tool_call_input.delta", self._place)

    def add(self, events: Events, text: str) -> None:
        """Add a part of the arguments, or of the input."""
        self._texts.append(text)
        if self._is_text:
            events.put_text(self._prefix, text)

    @property
    def _input(self) -> str:
        return self._text if self._is_text else custom_input(self._text)

    def _close_parts(self, events: Events) -> None:
        if not self._is_text:
            events.put_text(self._prefix, self._input)
        events.emit("response.custom_tool_call_input.done", {**self._place, "input": self._input})

    def _item(self, status: str) -> dict[str, Any]:
        item = {"id": self._id, "type": "custom_tool_call", "status": status, **self._call}
        return {**item, "input": "" if status == "in_progress" else self._input}


def _prefix(kind: str, fields: dict[str, Any]) -> bytes:
    """Return the beginning of an event of a delta, up to its text."""
    body = orjson.dumps({"type": kind, **fields})[:-1]
    return b'event: %b\ndata: %b,"delta":' % (kind.encode(), body)
