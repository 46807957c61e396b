"""Encodes the events of a generation as Anthropic's named events.

A token's event consists of a prefix that is made once per block, the text as JSON, and a suffix.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.anthropic_messages import errors
from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.objects import (
    budget_fields,
    delta_usage_object,
    message_object,
    stop_object,
    text_block,
    thinking_block,
    tool_use_block,
    usage_object,
)
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.errors import ApiError
from services.gateway.limit_status import SpentBudget

_END: Final = b"}}" + sse.END
_PING: Final = sse.event(b'{"type":"ping"}', name="ping")
_EARLY_KEEP_ALIVE: Final = sse.comment("keep-alive")
_TEXT: Final = "text"
_THINKING: Final = "thinking"


class MessageStream:
    """The encoder of one stream. Blocks follow one another; only one is open at a time."""

    def __init__(self, call: MessagesCall, head: ResponseHead, signatures: ThinkingSignatures) -> None:
        """Encode the response to `call`, which has no prompt."""
        self._call: Final = call
        self._head: Final = head
        self._signatures: Final = signatures
        self._index = -1
        """The index of the last block."""
        self._open = ""
        """The kind of the open block: text, thinking, or the number of a tool call; empty if there is none."""
        self._prefix = b""
        """The beginning of the events with the text of the open block."""
        self._thinking: list[str] = []
        """The text of the open block of thinking, which is signed at its end."""
        self._has_begun = False
        self._is_clamped = False
        self._finish = pb.Finish()
        self._spent: SpentBudget | None = None

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in the last event."""
        self._spent = budget

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return Anthropic's events for a group of worker events, joined, because they are sent together."""
        return b"".join(self._encode(event) for event in events)

    def end(self) -> bytes:
        """Return the event `message_stop`."""
        return _event("message_stop")

    def error(self, error: ApiError) -> bytes:
        """Return the event `error`. No block is closed: what was sent must not look finished."""
        return errors.event(error, request_id=self._head.request_id)

    def keep_alive(self) -> bytes:
        """Return the event `ping`, or a comment before the first event, which must be `message_start`."""
        return _PING if self._has_begun else _EARLY_KEEP_ALIVE

    def queued(self, position: int) -> bytes:
        """Return an SSE comment with the position in the queue."""
        return sse.comment(f"queued {position}")

    def _encode(self, event: pb.Event) -> bytes:
        match event.WhichOneof("event"):
            case "delta":
                return self._delta(event.delta)
            case "started":
                return self._begin(event.started)
            case "finish":
                self._finish = event.finish
                return self._close()
            case "usage":
                return self._close() + self._message_delta(event.usage)
        return b""

    def _begin(self, started: pb.Started) -> bytes:
        self._has_begun = True
        self._is_clamped = started.HasField("max_tokens")
        usage = pb.Usage(prompt_tokens=started.prompt_tokens, cached_tokens=started.cached_tokens)
        return _event("message_start", message=message_object(self._call, self._head, usage=usage_object(usage)))

    def _message_delta(self, usage: pb.Usage) -> bytes:
        finish = self._finish
        stop = stop_object(finish.reason or pb.FINISH_REASON_STOP, finish.stop_string, is_clamped=self._is_clamped)
        delta = {**stop, "container": None}
        return _event("message_delta", delta=delta, usage=delta_usage_object(usage), **budget_fields(self._spent))

    def _delta(self, delta: pb.Delta) -> bytes:
        match delta.WhichOneof("fragment"):
            case "content" if delta.content:
                return self._switch(_TEXT, text_block("")) + self._text(delta.content)
            case "reasoning_content" if delta.reasoning_content:
                beginning = self._switch(_THINKING, thinking_block("", ""))
                self._thinking.append(delta.reasoning_content)
                return beginning if self._call.hides_thinking else beginning + self._text(delta.reasoning_content)
            case "tool_call":
                call = delta.tool_call
                beginning = self._switch(str(call.index), tool_use_block(call.id, call.name, {}))
                return beginning + (self._text(call.arguments_json) if call.arguments_json else b"")
        return b""

    def _text(self, text: str) -> bytes:
        return self._prefix + orjson.dumps(text) + _END

    def _switch(self, kind: str, block: dict[str, Any]) -> bytes:
        """Open a block of a kind unless it is open. `block` is its beginning."""
        if kind == self._open:
            return b""
        closed = self._close()
        self._open, self._index = kind, self._index + 1
        names = {_TEXT: (b"text_delta", b"text"), _THINKING: (b"thinking_delta", b"thinking")}
        delta, field = names.get(kind, (b"input_json_delta", b"partial_json"))
        self._prefix = (
            b"event: content_block_delta\n"
            + sse.DATA
            + b'{"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":' % (self._index, delta, field)
        )
        return closed + _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        """Close the open block, if there is one. Thinking ends with its signature."""
        kind, self._open = self._open, ""
        if not kind:
            return b""
        signature = b""
        if kind == _THINKING:
            thinking, self._thinking = "".join(self._thinking), []
            call = self._call
            signed = self._signatures.write(call.tenant, call.generate.model, thinking, is_hidden=call.hides_thinking)
            delta = {"type": "signature_delta", "signature": signed}
            signature = _event("content_block_delta", index=self._index, delta=delta)
        return signature + _event("content_block_stop", index=self._index)


def _event(name: str, **fields: Any) -> bytes:
    return sse.event(orjson.dumps({"type": name, **fields}), name=name)
