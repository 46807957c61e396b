"""The objects of OpenAI's chat API, made of the workers' events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_chat.chat_request import ChatRequest
from services.gateway.tenancy.limits import SpentBudget

FINISH_REASONS: Final = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def usage_object(usage: pb.Usage) -> dict[str, Any]:
    """The object `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def logprobs_object(logprobs: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
    """The object `logprobs` of a choice."""
    content = [{**_token(entry), "top_logprobs": [_token(top) for top in entry.top]} for entry in logprobs]
    return {"content": content, "refusal": None}


def _token(entry: pb.TokenLogprob | pb.TopLogprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": list(entry.token_bytes)}


class WholeAnswer:
    """An answer that is put together before it is sent."""

    def __init__(self, request: ChatRequest, *, answer_id: str, created: int) -> None:
        """`created` is in seconds since 1970."""
        generate, with_logprobs = request.generate, request.generate.HasField("logprobs")
        self._id: Final = answer_id
        self._model: Final = generate.model
        self._choices: Final = [_WholeChoice(index, with_logprobs=with_logprobs) for index in range(max(1, generate.n))]
        self._created: Final = created
        self.usage = pb.Usage()
        self._note: dict[str, Any] = {}

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the answer."""
        self._note = {"vilix": budget.to_object()}

    def add(self, event: pb.Event) -> None:
        """Take over one event."""
        match event.WhichOneof("event"):
            case "delta":
                self._choices[event.delta.index].add(event.delta)
            case "finish":
                self._choices[event.finish.index].finish_reason = FINISH_REASONS[event.finish.reason]
            case "usage":
                self.usage = event.usage

    def to_object(self) -> dict[str, Any]:
        """The object `chat.completion`."""
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice.to_object() for choice in self._choices],
            "usage": usage_object(self.usage),
            **self._note,
        }


class _WholeChoice:
    def __init__(self, index: int, *, with_logprobs: bool) -> None:
        self._index = index
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[pb.TokenLogprob] | None = [] if with_logprobs else None
        self.finish_reason = "stop"

    def add(self, delta: pb.Delta) -> None:
        match delta.WhichOneof("fragment"):
            case "content":
                self._content.append(delta.content)
            case "reasoning_content":
                self._reasoning.append(delta.reasoning_content)
            case "tool_call":
                part = delta.tool_call
                empty = {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}}
                self._calls.setdefault(part.index, empty)["function"]["arguments"] += part.arguments_json
        if self._logprobs is not None:
            self._logprobs.extend(delta.logprobs)

    def to_object(self) -> dict[str, Any]:
        text = "".join(self._content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self._calls else ""),
            "refusal": None,
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return {
            "index": self._index,
            "message": message,
            "logprobs": None if self._logprobs is None else logprobs_object(self._logprobs),
            "finish_reason": self.finish_reason,
        }
