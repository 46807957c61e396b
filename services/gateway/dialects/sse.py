"""Encodes an answer's events as Server-Sent Events. The only place that writes `data: `.

A token's event is a prefix made once per choice, the text as JSON, and a suffix: encoding a whole object per token costs
several times as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_chat.chat_objects import FINISH_REASONS, logprobs_object, usage_object
from services.gateway.dialects.openai_chat.chat_request import ChatRequest
from services.gateway.tenancy.limits import SpentBudget

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
_NO_USAGE: Final = b',"usage":null}\n\n'
_END: Final = b"}\n\n"


def error_event(body: bytes) -> bytes:
    """The event of an error's JSON document. Nothing may follow it."""
    return b"data: " + body + b"\n\n"


def queued(place: int) -> bytes:
    """The comment for a request that waits; the next one has place 1."""
    return b": queued %d\n\n" % place


def ignored(names: str) -> bytes:
    """The comment that says what of the request has no influence, where the headers were sent before it was known."""
    return b": x-ignored-params %s\n\n" % names.encode("ascii")


class ChunkEncoder:
    """Encodes the `chat.completion.chunk` events of one answer."""

    def __init__(self, request: ChatRequest, *, answer_id: str, created: int) -> None:
        """`created` is in seconds since 1970. Every choice begins with an event that says whose answer it is."""
        model = request.generate.model
        head = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head: Final = b"data: " + orjson.dumps(head)[:-1]
        self._include_usage: Final = request.include_usage
        self._continuous: Final = request.continuous_usage
        self._tail = _NO_USAGE if request.include_usage else _END
        self._plain_tail: Final = b'},"logprobs":null,"finish_reason":null}]'
        self._choices: Final = [
            self._head + b',"choices":[{"index":%d,"delta":{' % index for index in range(max(1, request.generate.n))
        ]
        self._so_far = pb.Usage()
        self._note = b""

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the answer in every event from here on."""
        self._note = b',"vilix":' + orjson.dumps(budget.to_object())

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """The events that follow from what the worker sent, joined: they are sent at once."""
        return b"".join(self._encode(event) for event in events)

    def _encode(self, event: pb.Event) -> bytes:
        match event.WhichOneof("event"):
            case "delta":
                return self._delta(event.delta)
            case "started":
                self._so_far.prompt_tokens = event.started.prompt_tokens
                if self._continuous:
                    self._tail = self._usage_tail()
                return self._beginning()
            case "finish":
                reason = orjson.dumps(FINISH_REASONS[event.finish.reason])
                return (
                    self._choices[event.finish.index]
                    + b'},"logprobs":null,"finish_reason":'
                    + reason
                    + b"}]"
                    + self._note
                    + self._tail
                )
            case "usage" if self._include_usage:
                usage = orjson.dumps(usage_object(event.usage))
                return self._head + b',"choices":[]' + self._note + b',"usage":' + usage + _END
        return b""

    def _beginning(self) -> bytes:
        return b"".join(
            choice + b'"role":"assistant","content":""' + self._plain_tail + self._tail for choice in self._choices
        )

    def _delta(self, delta: pb.Delta) -> bytes:
        if self._continuous:
            self._so_far.completion_tokens += delta.token_count
            self._tail = self._usage_tail()
        match delta.WhichOneof("fragment"):
            case "content":
                fragment = b'"content":' + orjson.dumps(delta.content)
            case "reasoning_content":
                fragment = b'"reasoning_content":' + orjson.dumps(delta.reasoning_content)
            case "tool_call":
                fragment = b'"tool_calls":[' + _tool_call(delta.tool_call) + b"]"
            case _:
                return b""
        tail = self._plain_tail
        if delta.logprobs:
            tail = b'},"logprobs":' + orjson.dumps(logprobs_object(delta.logprobs)) + b',"finish_reason":null}]'
        return self._choices[delta.index] + fragment + tail + self._tail

    def _usage_tail(self) -> bytes:
        return b',"usage":' + orjson.dumps(usage_object(self._so_far)) + _END


def _tool_call(fragment: pb.ToolCallFragment) -> bytes:
    function: dict[str, str] = {"arguments": fragment.arguments_json}
    if not fragment.id:
        return orjson.dumps({"index": fragment.index, "function": function})
    first = {"index": fragment.index, "id": fragment.id, "type": "function"}
    return orjson.dumps({**first, "function": {"name": fragment.name, **function}})
