"""The objects of OpenAI's (legacy) text completion API, made of the workers' events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_chat.chat_objects import FINISH_REASONS, usage_object
from services.gateway.dialects.openai_chat.chat_request import ChatRequest
from services.gateway.tenancy.limits import SpentBudget


class _Logprobs:
    """The object `logprobs` of one choice, which says of each token where it begins in the text."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def of(self, entries: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
        """Of the next tokens."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            found["tokens"].append(entry.token)
            found["token_logprobs"].append(entry.logprob)
            found["top_logprobs"].append({top.token: top.logprob for top in entry.top})
            found["text_offset"].append(self._offset)
            self._offset += len(entry.token)
        return found


class TextEncoder:
    """Encodes the `text_completion` events of one answer."""

    def __init__(self, request: ChatRequest, *, answer_id: str, created: int) -> None:
        """`created` is in seconds since 1970."""
        assert request.text is not None  # noqa: S101  # it is no chat
        self._head: Final = _head(request, answer_id, created)
        self._echo: Final = request.text.echo
        self._choices: Final = max(1, request.generate.n)
        self._include_usage: Final = request.include_usage
        self._continuous: Final = request.continuous_usage
        self._logprobs: Final = [_Logprobs(len(self._echo)) for _ in range(self._choices)]
        self._so_far = pb.Usage()
        self._note: dict[str, Any] = {}

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the answer in every event from here on."""
        self._note = {"vilix": budget.to_object()}

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """The events that follow from what the worker sent, joined: they are sent at once."""
        return b"".join(self._encode(event) for event in events)

    def _encode(self, event: pb.Event) -> bytes:
        match event.WhichOneof("event"):
            case "started":
                self._so_far.prompt_tokens = event.started.prompt_tokens
                # Without a first event, a client would not know that the request was taken.
                return b"".join(self._chunk(index, self._echo) for index in range(self._choices))
            case "delta":
                self._so_far.completion_tokens += event.delta.token_count
                index, entries = event.delta.index, event.delta.logprobs
                logprobs = self._logprobs[index].of(entries) if entries else None
                return self._chunk(index, event.delta.content, logprobs=logprobs)
            case "finish":
                return self._chunk(event.finish.index, "", finish_reason=FINISH_REASONS[event.finish.reason])
            case "usage" if self._include_usage:
                return _event({**self._head, "choices": [], **self._note, "usage": usage_object(event.usage)})
        return b""

    def _chunk(
        self, index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [choice], **self._note}
        if self._continuous:
            chunk["usage"] = usage_object(self._so_far)
        elif self._include_usage:
            chunk["usage"] = None
        return _event(chunk)


class WholeText:
    """A text completion that is put together before it is sent."""

    def __init__(self, request: ChatRequest, *, answer_id: str, created: int) -> None:
        """`created` is in seconds since 1970."""
        assert request.text is not None  # noqa: S101  # it is no chat
        self._head: Final = _head(request, answer_id, created)
        self._texts: Final = [[request.text.echo] for _ in range(max(1, request.generate.n))]
        self._entries: Final[list[list[pb.TokenLogprob]]] = [[] for _ in self._texts]
        self._with_logprobs: Final = request.generate.HasField("logprobs")
        self._reasons: Final = ["stop" for _ in self._texts]
        self._usage = pb.Usage()
        self._note: dict[str, Any] = {}

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the answer."""
        self._note = {"vilix": budget.to_object()}

    def add(self, event: pb.Event) -> None:
        """Take over one event."""
        match event.WhichOneof("event"):
            case "delta":
                self._texts[event.delta.index].append(event.delta.content)
                self._entries[event.delta.index].extend(event.delta.logprobs)
            case "finish":
                self._reasons[event.finish.index] = FINISH_REASONS[event.finish.reason]
            case "usage":
                self._usage = event.usage

    def to_object(self) -> dict[str, Any]:
        """The object `text_completion`."""
        choices = [
            {
                "index": index,
                "text": "".join(self._texts[index]),
                "logprobs": _Logprobs(0).of(self._entries[index]) if self._with_logprobs else None,
                "finish_reason": self._reasons[index],
            }
            for index in range(len(self._texts))
        ]
        return {**self._head, "choices": choices, "usage": usage_object(self._usage), **self._note}


def _head(request: ChatRequest, answer_id: str, created: int) -> dict[str, Any]:
    return {"id": answer_id, "object": "text_completion", "created": created, "model": request.generate.model}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
