"""What one request used, counted from what the worker itself received, and told in its events and its log line."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference import metrics
from services.inference.generation.choice import Choice
from services.inference.request.prompt import Prompt
from services.runtime.failure import Failure, Reason
from services.worker.triton_client import EngineOutput

_log: Final = logging.getLogger(__name__)


class UsageCount:
    """The count of one request, from its acceptance to its end. Leaving its context logs it."""

    def __init__(self, request_id: str, model_id: str) -> None:
        """Starts now."""
        self._request_id: Final = request_id
        self._model_id: Final = model_id
        self._accepted: Final = time.monotonic()
        self._created: Final = time.time_ns()
        self._prompt: Prompt | None = None
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._first_token_seconds: float | None = None
        self._timings: dict[str, float] = {}

    def __enter__(self) -> Self:
        metrics.REQUESTS_IN_FLIGHT.labels(self._model_id).inc()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        outcome, model = _outcome(error), self._model_id
        metrics.REQUESTS_IN_FLIGHT.labels(model).dec()
        metrics.REQUESTS.labels(model, outcome).inc()
        metrics.REQUEST_SECONDS.labels(model).observe(time.monotonic() - self._accepted)
        metrics.TOKENS.labels(model, "prompt").inc(self._prompt_tokens)
        metrics.TOKENS.labels(model, "completion").inc(self._completion_tokens)
        fields = {
            "request_id": self._request_id,
            "model": model,
            "outcome": outcome,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "seconds": round(time.monotonic() - self._accepted, 3),
        }
        if self._first_token_seconds is not None:
            fields["first_token_seconds"] = round(self._first_token_seconds, 3)
        _log.info("generate", extra=fields)

    def started(self, prompt: Prompt, ignored_parameters: list[str]) -> list[pb.Event]:
        """The event that begins the stream, the first time; then nothing.

        It goes out with the engine's first output and not before: until then every failure, the engine's own refusals
        included, can still be a plain status.
        """
        if self._prompt is not None:
            return []
        self._prompt = prompt
        started = pb.Started(prompt_tokens=prompt.token_count, ignored_parameters=ignored_parameters)
        started.created.FromNanoseconds(self._created)
        return [pb.Event(started=started)]

    def note(self, output: EngineOutput) -> None:
        """Count an output. Of the choices' own timings, the longest count."""
        self._completion_tokens += len(output.token_ids)
        if self._first_token_seconds is None and output.token_ids:
            self._first_token_seconds = time.monotonic() - self._accepted
            metrics.FIRST_TOKEN_SECONDS.labels(self._model_id).observe(self._first_token_seconds)
        if output.usage is not None:
            self._cached_tokens = max(self._cached_tokens, output.usage["cached_tokens"])
            for name, seconds in output.usage["timings"].items():
                self._timings[name] = max(self._timings.get(name, 0.0), seconds)

    def event(self, choices: Sequence[Choice]) -> pb.Event:
        """The event that ends the stream."""
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


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Failure):
        return str(error.reason)
    return str(Reason.INTERNAL) if isinstance(error, Exception) else "cancelled"


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(int(seconds * 1e6))
    return duration
