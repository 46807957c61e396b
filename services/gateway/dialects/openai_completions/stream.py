"""Encodes the events of a generation as `text_completion` events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_completions.logprobs import Logprobs, prompt_text
from services.gateway.dialects.openai_completions.request import CompletionCall
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, head_object, usage_object
from services.gateway.dialects.openai_streaming import OpenAIStream
from services.gateway.limit_status import SpentBudget


class TextEncoder(OpenAIStream):
    """The encoder of one stream."""

    def __init__(self, call: CompletionCall, head: ResponseHead) -> None:
        """Encode the response to `call`."""
        self._head: Final = head_object("text_completion", head, call.generate.model)
        self._call: Final = call
        self._choices: Final = call.choices
        self._include_usage: Final = call.include_usage
        self._continuous: Final = call.continuous_usage
        # Created when they are needed: `n` is checked by the worker, which has not been called yet.
        self._logprobs: Final = defaultdict[int, Logprobs](partial(Logprobs, 0))
        # The echo comes with the log probabilities of its tokens.
        self._echo_comes_later: Final = call.echoes and call.returns_logprobs
        self._so_far = pb.Usage()
        self._note: dict[str, Any] = {}

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in all later events."""
        self._note = {"vilix": budget_object(budget)}

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the chunks for a group of worker events, joined, because they are sent together."""
        return b"".join(self._encode(event) for event in events)

    def _encode(self, event: pb.Event) -> bytes:
        match event.WhichOneof("event"):
            case "started":
                self._so_far.prompt_tokens = event.started.prompt_tokens
                # The first event tells the client that its request was accepted.
                return b"".join(self._chunk(index, self._early_echo(index)) for index in range(self._choices))
            case "delta":
                return self._delta(event.delta)
            case "finish":
                reason = "length" if self._call.only_echoes else FINISH_REASONS[event.finish.reason]
                return self._chunk(event.finish.index, "", finish_reason=reason)
            case "usage" if self._include_usage:
                return _event({**self._head, "choices": [], **self._note, "usage": usage_object(event.usage)})
        return b""

    def _early_echo(self, choice: int) -> str:
        return "" if self._echo_comes_later else self._call.echo(choice) or ""

    def _delta(self, delta: pb.Delta) -> bytes:
        self._so_far.completion_tokens += delta.token_count
        text, generated = delta.content, list(delta.logprobs)
        if self._call.only_echoes:
            text, generated = "", []
        if delta.prompt_logprobs:
            echo = self._call.echo(delta.index)
            text = (prompt_text(delta.prompt_logprobs) if echo is None else echo) + text
        logprobs = None
        if generated or delta.prompt_logprobs:
            logprobs = self._logprobs[delta.index].of(generated, delta.prompt_logprobs)
        return self._chunk(delta.index, text, logprobs=logprobs)

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


def _event(chunk: dict[str, Any]) -> bytes:
    return sse.event(orjson.dumps(chunk))
