"""Counts the usage of one request from the outputs that the worker received, for its events and its log line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference import metrics
from services.inference.generation.choice import Choice
from services.inference.request.prompt import Prompt
from services.worker.call_record import CallRecord
from services.worker.triton_client import EngineOutput


class UsageCount(CallRecord):
    """The count of one request, from its acceptance to its end."""

    def __init__(self, request_id: str, model_id: str) -> None:
        """Begin the count of a request for the model `model_id`, now."""
        super().__init__(
            "generate",
            request_id=request_id,
            model_id=model_id,
            requests=metrics.REQUESTS,
            seconds=metrics.REQUEST_SECONDS,
        )
        self._created: Final = time.time_ns()
        self._prompt: Prompt | None = None
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._first_token_seconds: float | None = None
        self._timings: dict[str, float] = {}

    def _begin(self) -> None:
        metrics.REQUESTS_IN_FLIGHT.labels(self._model_id).inc()

    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        metrics.REQUESTS_IN_FLIGHT.labels(self._model_id).dec()
        metrics.TOKENS.labels(self._model_id, "prompt").inc(self._prompt_tokens)
        metrics.TOKENS.labels(self._model_id, "completion").inc(self._completion_tokens)
        fields: dict[str, object] = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
        }
        if self._first_token_seconds is not None:
            fields["first_token_seconds"] = round(self._first_token_seconds, 3)
        return fields

    def take_started_event(self, prompt: Prompt, ignored_parameters: list[str]) -> list[pb.Event]:
        """Return the event that begins the stream at the first call, and no event at later calls.

        It is sent with the engine's first output and not before: until then every failure, the engine's own errors
        included, can still be a plain status.
        """
        if self._prompt is not None:
            return []
        self._prompt = prompt
        started = pb.Started(prompt_tokens=prompt.token_count, ignored_parameters=ignored_parameters)
        started.created.FromNanoseconds(self._created)
        return [pb.Event(started=started)]

    def note(self, output: EngineOutput) -> None:
        """Count an output. Of the timings of all choices, the longest are kept."""
        self._completion_tokens += len(output.token_ids)
        if self._first_token_seconds is None and output.token_ids:
            self._first_token_seconds = self._elapsed
            metrics.FIRST_TOKEN_SECONDS.labels(self._model_id).observe(self._first_token_seconds)
        if output.usage is not None:
            self._cached_tokens = max(self._cached_tokens, output.usage["cached_tokens"])
            for name, seconds in output.usage["timings"].items():
                self._timings[name] = max(self._timings.get(name, 0.0), seconds)

    def event(self, choices: Sequence[Choice]) -> pb.Event:
        """Return the event that ends the stream."""
        return pb.Event(
            usage=pb.Usage(
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                cached_tokens=self._cached_tokens,
                reasoning_tokens=sum(choice.reasoning_tokens for choice in choices),
                timings=pb.Timings(
                    queued=_duration(self._timings.get("queued_s")),
                    prefill=_duration(self._timings.get("prefill_s")),
                    decode=_duration(self._timings.get("decode_s")),
                    first_token=_duration(self._first_token_seconds),
                ),
            )
        )

    @property
    def _prompt_tokens(self) -> int:
        return 0 if self._prompt is None else self._prompt.token_count


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(int(seconds * 1e6))
    return duration
