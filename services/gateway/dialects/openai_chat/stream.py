"""Encodes the events of a generation as `chat.completion.chunk` events.

A token's event consists of a prefix that is made once per choice, the text as JSON, and a suffix.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat.logprobs import logprobs_object
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, usage_object
from services.gateway.dialects.openai_streaming import OpenAIStream
from services.gateway.limit_status import SpentBudget

_END: Final = b"}" + sse.END
_NO_USAGE: Final = b',"usage":null' + _END
_PLAIN_TAIL: Final = b'},"logprobs":null,"finish_reason":null}]'


class _Prefixes(dict[int, bytes]):
    """The prefix of the events of each choice, by the choice's index.

    Prefixes are made when they are needed: `n` is checked by the worker, which has not been called yet.
    """

    def __init__(self, head: bytes) -> None:
        super().__init__()
        self._head = head

    def __missing__(self, index: int) -> bytes:
        prefix = self[index] = self._head + b',"choices":[{"index":%d,"delta":{' % index
        return prefix


class ChunkEncoder(OpenAIStream):
    """The encoder of one stream. Every choice begins with an event that has the role."""

    def __init__(self, call: OpenAICall, head: ResponseHead) -> None:
        """Encode the response to `call`, which is not kept."""
        common = {"id": head.id, "object": "chat.completion.chunk", "created": head.created}
        self._head: Final = sse.DATA + orjson.dumps({**common, "model": call.generate.model})[:-1]
        self._include_usage: Final = call.include_usage
        self._continuous: Final = call.continuous_usage
        self._tail = _NO_USAGE if call.include_usage else _END
        self._number_of_choices: Final = call.choices
        self._choices: Final = _Prefixes(self._head)
        self._so_far = pb.Usage()
        self._note = b""

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in all later events."""
        self._note = b',"vilix":' + orjson.dumps(budget_object(budget))

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the chunks for a group of worker events, joined, because they are sent together."""
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
                before = self._choices[event.finish.index] + b'},"logprobs":null,"finish_reason":'
                return before + reason + b"}]" + self._note + self._tail
            case "usage" if self._include_usage:
                usage = orjson.dumps(usage_object(event.usage))
                return self._head + b',"choices":[]' + self._note + b',"usage":' + usage + _END
        return b""

    def _beginning(self) -> bytes:
        rest = b'"role":"assistant","content":""' + _PLAIN_TAIL + self._tail
        return b"".join(self._choices[index] + rest for index in range(self._number_of_choices))

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
        tail = _PLAIN_TAIL
        if delta.logprobs:
            tail = b'},"logprobs":' + orjson.dumps(logprobs_object(delta.logprobs)) + b',"finish_reason":null}]'
        return self._choices[delta.index] + fragment + tail + self._tail

    def _usage_tail(self) -> bytes:
        return b',"usage":' + orjson.dumps(usage_object(self._so_far)) + _END


def _tool_call(fragment: pb.ToolCallFragment) -> bytes:
    function: dict[str, Any] = {"arguments": fragment.arguments_json}
    if not fragment.id:
        return orjson.dumps({"index": fragment.index, "function": function})
    first = {"index": fragment.index, "id": fragment.id, "type": "function"}
    return orjson.dumps({**first, "function": {"name": fragment.name, **function}})
