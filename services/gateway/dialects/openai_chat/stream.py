"""Encodes the events of a generation as `chat.completion.chunk` events.

A token's event consists of a prefix that is made once per choice, the text as JSON, and a suffix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import PlainTextEncoder, ResponseHead, TextFrames
from services.gateway.dialects.openai_chat.logprobs import logprobs_object
from services.gateway.dialects.openai_chat.request import ChatCall
from services.gateway.dialects.openai_chat.response import finish_reason
from services.gateway.dialects.openai_objects import budget_object, head_object, usage_object
from services.gateway.dialects.openai_streaming import OpenAIStream
from services.gateway.limit_status import SpentBudget

_END: Final = b"}" + sse.END
_NO_USAGE: Final = b',"usage":null' + _END
_PLAIN_TAIL: Final = b'},"logprobs":null,"finish_reason":null}]'
_CONTENT: Final = (b'"content":',)


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


class ChunkEncoder(OpenAIStream, PlainTextEncoder):
    """The encoder of one stream. Every choice begins with an event that has the role."""

    def __init__(self, call: ChatCall, head: ResponseHead, *, reasoning_fields: Sequence[str]) -> None:
        """Encode the response to `call`, which is not kept. Reasoning is in each of `reasoning_fields`."""
        common = head_object("chat.completion.chunk", head, call.generate.model)
        self._head: Final = sse.DATA + orjson.dumps(common)[:-1]
        self._include_usage: Final = call.include_usage
        self._continuous: Final = call.continuous_usage
        self._tail = _NO_USAGE if call.include_usage else _END
        self._number_of_choices: Final = call.choices
        self._choices: Final = _Prefixes(self._head)
        self._may_call: Final = call.may_call
        self._has_functions: Final = call.has_functions
        self._reasoning_fields: Final = [b'"%s":' % name.encode() for name in reasoning_fields]
        self._so_far = pb.Usage()
        self._note = b""

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in all later events."""
        self._note = b',"vilix":' + orjson.dumps(budget_object(budget))

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the chunks for a group of worker events, joined, because they are sent together."""
        return b"".join(self._encode(event) for event in events)

    def text_frames(self) -> TextFrames | None:
        """Return the frames of chunks for text. With continuous usage, every chunk ends with other numbers."""
        if self._continuous:
            return None
        return TextFrames(content=self._frame(_CONTENT), reasoning=self._frame(self._reasoning_fields))

    def _frame(self, names: Sequence[bytes]) -> list[bytes]:
        first, *others = names
        return [self._choices[0] + first, *(b"," + name for name in others), _PLAIN_TAIL + self._tail]

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
                reason = orjson.dumps(finish_reason(event.finish.reason, has_functions=self._has_functions))
                before = self._choices[event.finish.index] + b'},"logprobs":null,"finish_reason":'
                return before + reason + b"}]" + self._note + self._tail
            case "usage" if self._include_usage:
                usage = orjson.dumps(usage_object(event.usage))
                return self._head + b',"choices":[]' + self._note + b',"usage":' + usage + _END
        return b""

    def _beginning(self) -> bytes:
        # Some clients show an empty text before a call if the content is an empty text.
        content = b"null" if self._may_call else b'""'
        rest = b'"role":"assistant","content":' + content + _PLAIN_TAIL + self._tail
        return b"".join(self._choices[index] + rest for index in range(self._number_of_choices))

    def _delta(self, delta: pb.Delta) -> bytes:
        if self._continuous:
            self._so_far.completion_tokens += delta.token_count
            self._tail = self._usage_tail()
        match delta.WhichOneof("fragment"):
            case "content":
                fragment = _fields(_CONTENT, delta.content)
            case "reasoning_content":
                fragment = _fields(self._reasoning_fields, delta.reasoning_content)
            case "tool_call":
                fragment = _function_call(delta.tool_call) if self._has_functions else _tool_calls(delta.tool_call)
            case _:
                return b""
        tail = _PLAIN_TAIL
        if delta.logprobs:
            tail = b'},"logprobs":' + orjson.dumps(logprobs_object(delta.logprobs)) + b',"finish_reason":null}]'
        return self._choices[delta.index] + fragment + tail + self._tail

    def _usage_tail(self) -> bytes:
        return b',"usage":' + orjson.dumps(usage_object(self._so_far)) + _END


def _fields(names: Sequence[bytes], text: str) -> bytes:
    """Return the same text in each of several fields."""
    encoded = orjson.dumps(text)
    return names[0] + encoded if len(names) == 1 else b",".join([name + encoded for name in names])


def _tool_calls(fragment: pb.ToolCallFragment) -> bytes:
    function: dict[str, Any] = {"arguments": fragment.arguments_json}
    call: dict[str, Any] = {"index": fragment.index}
    if fragment.id:
        call |= {"id": fragment.id, "type": "function"}
        function = {"name": fragment.name, **function}
    return b'"tool_calls":[' + orjson.dumps({**call, "function": function}) + b"]"


def _function_call(fragment: pb.ToolCallFragment) -> bytes:
    name = {"name": fragment.name} if fragment.id else {}
    return b'"function_call":' + orjson.dumps({**name, "arguments": fragment.arguments_json})
