"""What one request used, counted from what the worker itself received."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.choice import Choice
from services.inference.prompt import Prompt
from services.triton_client import EngineOutput


class UsageCount:
    """The count of one request, from its acceptance to its end."""

    def __init__(self, prompt: Prompt) -> None:
        """Starts now."""
        self._prompt: Final = prompt
        self._accepted: Final = time.monotonic()
        self._created: Final = time.time_ns()
        self._first_token_seconds: float | None = None
        self._cached_tokens = 0
        self._timings: dict[str, float] = {}
        self._has_started = False

    def started(self) -> list[pb.Event]:
        """The event that begins the stream, the first time.

        It is sent with the engine's first output and not before: until then a failure can still be a plain status.
        """
        if self._has_started:
            return []
        self._has_started = True
        event = pb.Event(started=pb.Started(prompt_tokens=len(self._prompt.token_ids)))
        event.started.created.FromNanoseconds(self._created)
        return [event]

    def note(self, output: EngineOutput) -> None:
        """Take over what the engine says of itself. Of several choices, the one that took longest counts."""
        if self._first_token_seconds is None and output.token_ids:
            self._first_token_seconds = time.monotonic() - self._accepted
        if output.usage is not None:
            self._cached_tokens = max(self._cached_tokens, output.usage["cached_tokens"])
            for name, seconds in output.usage["timings"].items():
                self._timings[name] = max(self._timings.get(name, 0.0), seconds)

    def event(self, choices: Iterable[Choice]) -> pb.Event:
        """The event that ends the stream."""
        return pb.Event(
            usage=pb.Usage(
                prompt_tokens=len(self._prompt.token_ids),
                completion_tokens=sum(choice.token_count for choice in choices),
                cached_tokens=self._cached_tokens,
                timings=pb.Timings(
                    queued=_duration(self._timings.get("queued_s")),
                    prefill=_duration(self._timings.get("prefill_s")),
                    decode=_duration(self._timings.get("decode_s")),
                    first_token=_duration(self._first_token_seconds),
                ),
            )
        )


def _duration(seconds: float | None) -> Any:
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(int(seconds * 1e6))
    return duration
