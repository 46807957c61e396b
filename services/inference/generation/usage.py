"""Counts the usage of one request from the outputs that the worker received, for its events and its log line."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference import metrics
from services.inference.generation.choice import Choice
from services.inference.generation.engine_span import METHOD, EngineUsage, engine_span
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.runtime.tracing.local_trace import LocalTrace, Tracer
from services.runtime.tracing.span import Span
from services.worker.call_record import CallRecord
from services.worker.triton_messages import EngineOutput

_PHASES: Final = {
    "queued_s": metrics.QUEUE_SECONDS,
    "prefill_s": metrics.PREFILL_SECONDS,
    "decode_s": metrics.DECODE_SECONDS,
}
_HOST: Final = socket.gethostname()


class UsageCount(CallRecord):
    """The count of one request, from its acceptance to its end."""

    def __init__(
        self, request_id: str, model_id: str, *, request: pb.GenerateRequest, tracer: Tracer | None = None
    ) -> None:
        """Begin the count of `request`, for the model `model_id`, now. With `tracer`, it is traced."""
        super().__init__(
            "generate",
            request_id=request_id,
            model_id=model_id,
            requests=metrics.REQUESTS,
            seconds=metrics.REQUEST_SECONDS,
            tracer=tracer,
            method=METHOD,
        )
        self._request: Final = request
        self._created: Final = time.time_ns()
        self._prompts: Sequence[Prompt] | None = None
        self.has_started = False
        """Whether the event that begins the stream was taken."""
        self._completion_tokens = 0
        self._cached_tokens: Final[dict[int, int]] = {}
        """The tokens that came from the prefix cache, by prompt."""
        self._first_token_seconds: float | None = None
        self._render_seconds: float | None = None
        self._timings: dict[str, float] = {}
        self._rendered_at: float | None = None
        self._choices: Sequence[Choice] = ()

    def _begin(self) -> None:
        metrics.REQUESTS_IN_FLIGHT.labels(self._model_id).inc()

    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        metrics.REQUESTS_IN_FLIGHT.labels(self._model_id).dec()
        metrics.TOKENS.labels(self._model_id, "prompt").inc(self._prompt_tokens)
        metrics.TOKENS.labels(self._model_id, "completion").inc(self._completion_tokens)
        metrics.CACHED_TOKENS.labels(self._model_id).inc(sum(self._cached_tokens.values()))
        for phase, metric in _PHASES.items():
            if phase in self._timings:
                metric.labels(self._model_id).observe(self._timings[phase])
        fields: dict[str, object] = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
        }
        if self._first_token_seconds is not None:
            fields["first_token_seconds"] = round(self._first_token_seconds, 3)
        return fields

    def _spans(self, trace: LocalTrace, error: str | None) -> list[Span]:
        now, rendered_at, first_token = time.perf_counter(), self._rendered_at, self._first_token_seconds
        if rendered_at is None:
            return [trace.span("render", trace.began, now)]
        usage = EngineUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=sum(self._cached_tokens.values()),
            reasoning_tokens=sum(choice.reasoning_tokens for choice in self._choices),
            finish_reasons=[reason for choice in self._choices if (reason := choice.finish_reason)],
            first_token_at=None if first_token is None else trace.began + first_token,
            timings=self._timings,
        )
        rendering = trace.span("render", trace.began, rendered_at)
        engine = engine_span(
            trace,
            self._request,
            usage,
            request_id=self._request_id,
            began=rendered_at,
            context=self._engine_context,
            error=error,
        )
        return [rendering, engine]

    def note_rendered(self) -> None:
        """Note that the prompts were rendered, so that the engine's part begins."""
        self._render_seconds = self._elapsed
        self._rendered_at = time.perf_counter()

    def take_started_event(
        self, prompts: Sequence[Prompt], ignored_parameters: list[str], *, max_tokens: int | None = None
    ) -> list[pb.Event]:
        """Return the event that begins the stream at the first call, and no event at later calls.

        `max_tokens` is the number to which the context limits the request's, if it does.

        It is sent with the engine's first output and not before: until then every failure, the engine's own errors
        included, can still be a plain status.
        """
        if self._prompts is not None:
            return []
        self._prompts, self.has_started = prompts, True
        started = pb.Started(
            prompt_tokens=self._prompt_tokens,
            ignored_parameters=ignored_parameters,
            cached_tokens=min(sum(self._cached_tokens.values()), self._prompt_tokens),
            max_tokens=max_tokens,
        )
        started.created.FromNanoseconds(self._created)
        return [pb.Event(started=started)]

    def note_tokens(self, count: int) -> None:
        """Count tokens of an output."""
        self._completion_tokens += count
        if self._first_token_seconds is None:
            self._first_token_seconds = self._elapsed
            metrics.FIRST_TOKEN_SECONDS.labels(self._model_id).observe(self._first_token_seconds)

    def note(self, output: EngineOutput, *, prompt: int = 0, is_sent: bool = True) -> None:
        """Count an output of a choice of `prompt`, whose tokens count if they are sent.

        Of the timings of all choices, the longest are kept, and of the cached tokens of a prompt, the most.
        """
        if output.token_ids:
            self.note_tokens(len(output.token_ids) if is_sent else 0)
        noted = [output.cached_tokens, None if output.usage is None else output.usage["cached_tokens"]]
        for cached in noted:
            if cached is not None:
                self._cached_tokens[prompt] = max(self._cached_tokens.get(prompt, 0), cached)
        if output.usage is not None:
            for name, seconds in output.usage["timings"].items():
                self._timings[name] = max(self._timings.get(name, 0.0), seconds)

    def event(self, choices: Sequence[Choice], model: ServedModel) -> pb.Event:
        """Return the event that ends the stream of a request for `model`."""
        self._choices = choices
        # An engine that has just failed is not described any more, although it has generated everything.
        engine = model.description
        return pb.Event(
            usage=pb.Usage(
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                cached_tokens=sum(self._cached_tokens.values()),
                reasoning_tokens=sum(choice.reasoning_tokens for choice in choices),
                timings=pb.Timings(
                    queued=_duration(self._timings.get("queued_s")),
                    prefill=_duration(self._timings.get("prefill_s")),
                    decode=_duration(self._timings.get("decode_s")),
                    first_token=_duration(self._first_token_seconds),
                    render=_duration(self._render_seconds),
                ),
                served_by=pb.ServedBy(
                    worker=_HOST,
                    engine=engine.engine if engine is not None else "",
                    engine_version=engine.version if engine is not None else "",
                ),
            )
        )

    @property
    def _prompt_tokens(self) -> int:
        return sum(prompt.token_count for prompt in self._prompts or ())


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(int(seconds * 1e6))
    return duration
