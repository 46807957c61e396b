"""Encodes the events of a generation as those of a response, and makes the response object of them.

The same encoder makes whole responses, so that the object is the same whichever way it is sent. Every event is written
in one piece, because a parser of the Open Responses suite loses events whose lines arrive apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.error_text import MESSAGE_ID_HEADER
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.output_items import (
    CustomCallItem,
    FunctionCallItem,
    MessageItem,
    OpenItem,
    ReasoningItem,
)
from services.gateway.dialects.openai_responses.response import (
    Seal,
    budget_fields,
    error_object,
    item_id,
    response_object,
    usage_object,
)
from services.gateway.errors import ApiError
from services.gateway.limit_status import SpentBudget

DONE: Final = sse.event(b"[DONE]")
KEEP_ALIVE: Final = sse.comment("keep-alive")
EVENT_SECONDS: Final = 60.0
"""Seconds without an event after which a stream repeats one.

Codex counts events and not comments: after 300 seconds without one it gives up, and sends its request again, while a
slow machine reads its long prompt.
"""
TERMINAL: Final = ("completed", "incomplete", "failed", "cancelled")
_REASONS: Final = {
    pb.FINISH_REASON_LENGTH: "max_output_tokens",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


class ResponseEncoder:
    """The encoder of one response."""

    def __init__(self, call: ResponsesCall, head: ResponseHead) -> None:
        """Encode the response to `call`, whose prompt is not needed."""
        self.response: Final = response_object(call, head)
        """The response object as far as it is known."""
        self.on_event: Callable[[bytes], None] | None = None
        """Called with every event as it is sent."""
        self.seal: Seal | None = None
        """Seals reasoning, if the request asks for it."""
        self._call: Final = call
        self._number = 0
        self._has_begun = False
        self._silent_at, self._silent_since = 0, time.monotonic()
        """The number of events at the last keep-alive, and the time of the first one at which there were so many."""
        self._frames: Final[list[bytes]] = []
        self._item: OpenItem | None = None
        self._calls = 0
        self._reason: str | None = None
        self._spent: SpentBudget | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the terminal event was encoded."""
        return self.response["status"] in TERMINAL

    @property
    def document(self) -> bytes:
        """The response object as JSON."""
        return orjson.dumps(self.response)

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in the response."""
        self._spent = budget

    def queue(self) -> bytes:
        """Return the events of a background response that waits for its turn."""
        self.response["status"] = "queued"
        self._has_begun = True
        self._lifecycle("created")
        self._lifecycle("queued")
        return self._taken()

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the events for a group of worker events, joined, because they are sent together."""
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    self._delta(event.delta)
                case "started":
                    self._begin()
                case "finish":
                    self._finish(event.finish.reason)
                case "usage":
                    self._end(event.usage)
        return self._taken()

    def end(self) -> bytes:
        """Return the bytes that follow the last event."""
        return DONE

    def error(self, error: ApiError) -> bytes:
        """Return the events that end a failed stream."""
        self._begin()
        if self.has_ended:
            return self._taken()
        body = error_object(error)
        self._close_item("incomplete")
        self.emit("error", {"code": body["code"], "message": body["message"], "param": error.field})
        self.response["error"] = body
        self._terminate("failed", "failed")
        return sse.comment(f"{MESSAGE_ID_HEADER} {error.message.id}") + self._taken() + DONE

    def cancel(self) -> None:
        """Note that the response was cancelled, in its object and in the events that are stored."""
        self._begin()
        if not self.has_ended:
            self._close_item("incomplete")
            self._terminate("incomplete", "cancelled")
        self._taken()

    def keep_alive(self) -> bytes:
        """Return an SSE comment, or the event `response.in_progress` again after EVENT_SECONDS without an event."""
        now = time.monotonic()
        if self._number != self._silent_at:
            self._silent_at, self._silent_since = self._number, now
        runs = self._has_begun and self.response["status"] == "in_progress"
        if not runs or now - self._silent_since < EVENT_SECONDS:
            return KEEP_ALIVE
        self._lifecycle("in_progress")
        return self._taken()

    def queued(self, position: int) -> bytes:
        """Return an SSE comment with the position in the queue."""
        return sse.comment(f"queued {position}")

    def emit(self, kind: str, fields: dict[str, Any]) -> None:
        """Encode an event with the next number."""
        body = orjson.dumps({"type": kind, "sequence_number": self._number, **fields})
        self.put(sse.event(body, name=kind))

    def put_text(self, prefix: bytes, text: str) -> None:
        """Encode an event of a delta, whose beginning was made once for its item."""
        self.put(b'%b%b,"sequence_number":%d}\n\n' % (prefix, orjson.dumps(text), self._number))

    def put(self, frame: bytes) -> None:
        """Take an encoded event."""
        self._number += 1
        self._frames.append(frame)
        if self.on_event is not None:
            self.on_event(frame)

    def _taken(self) -> bytes:
        data = b"".join(self._frames)
        self._frames.clear()
        return data

    def _lifecycle(self, kind: str) -> None:
        self.emit(f"response.{kind}", {"response": self.response})

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._lifecycle("created")
        elif self.response["status"] != "queued":
            return
        self.response["status"] = "in_progress"
        self._lifecycle("in_progress")

    def _delta(self, delta: pb.Delta) -> None:
        match delta.WhichOneof("fragment"):
            case "reasoning_content":
                self._reasoning().add(self, delta.reasoning_content)
            case "content" if self._call.forced_custom:
                self._forced_call().add(self, delta.content)
            case "content":
                self._message().add_text(self, delta.content, delta.logprobs)
            case "tool_call":
                self._tool_call(delta.tool_call)

    def _open(self, item: OpenItem) -> None:
        self._close_item("completed")
        self._item = item
        item.open(self)

    def _next_id(self, prefix: str) -> tuple[str, int]:
        """Return the id and the index of the item that follows the open one."""
        index = len(self.response["output"]) + (self._item is not None)
        return item_id(prefix, self.response["id"], index), index

    def _reasoning(self) -> ReasoningItem:
        if not isinstance(self._item, ReasoningItem):
            seal = self.seal if self._call.seals_reasoning else None
            self._open(ReasoningItem(*self._next_id("rs"), as_summary=self._call.summary, seal=seal))
        assert isinstance(self._item, ReasoningItem)  # noqa: S101  # it was opened
        return self._item

    def _message(self) -> MessageItem:
        if not isinstance(self._item, MessageItem):
            self._open(MessageItem(*self._next_id("msg")))
        assert isinstance(self._item, MessageItem)  # noqa: S101  # it was opened
        return self._item

    def _forced_call(self) -> CustomCallItem:
        if not isinstance(self._item, CustomCallItem):
            tool = self._call.tools[self._call.forced_custom]
            self._calls += 1
            identity = self._next_id("ctc")
            self._open(CustomCallItem(*identity, f"call_{identity[0]}", tool, is_text=True))
        assert isinstance(self._item, CustomCallItem)  # noqa: S101  # it was opened
        return self._item

    def _tool_call(self, fragment: pb.ToolCallFragment) -> None:
        most = self._call.max_tool_calls
        if most is not None and fragment.index >= most:
            return
        if fragment.id or fragment.name:
            tool = self._call.tools.get(fragment.name)
            self._calls += 1
            if tool is not None and tool.is_custom:
                self._open(CustomCallItem(*self._next_id("ctc"), fragment.id, tool))
            else:
                self._open(FunctionCallItem(*self._next_id("fc"), fragment.id, fragment.name, tool))
        if fragment.arguments_json and isinstance(self._item, FunctionCallItem | CustomCallItem):
            self._item.add(self, fragment.arguments_json)

    def _finish(self, reason: pb.FinishReason.ValueType) -> None:
        self._reason = _REASONS.get(reason)
        is_empty = not isinstance(self._item, MessageItem) and not self._calls
        if self._reason is None and is_empty:
            # An answer without a text is an empty one.
            self._message()
        self._close_item("completed" if self._reason is None else "incomplete")

    def _close_item(self, status: str) -> None:
        if self._item is not None:
            self.response["output"].append(self._item.close(self, status))
            self._item = None

    def _end(self, usage: pb.Usage) -> None:
        self._begin()
        self._close_item("completed")
        self.response["usage"] = usage_object(usage)
        if self._reason is None:
            self._terminate("completed", "completed")
            return
        self.response["incomplete_details"] = {"reason": self._reason}
        self._terminate("incomplete", "incomplete")

    def _terminate(self, kind: str, status: str) -> None:
        self.response.update(budget_fields(self._spent))
        self.response["status"] = status
        if status == "completed":
            self.response["completed_at"] = int(time.time())
        self._lifecycle(kind)
