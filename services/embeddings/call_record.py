"""The record of one Embed call, for the metrics and its log line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from google.protobuf import duration_pb2
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings import metrics
from services.embeddings.served_model import ServedModel
from services.runtime.tracing.local_trace import LocalTrace, Tracer
from services.runtime.tracing.span import Span, SpanKind, Value
from services.worker.call_record import CallRecord

METHOD: Final = f"{pb.DESCRIPTOR.services_by_name['EmbeddingsService'].full_name}/Embed"


class EmbedRecord(CallRecord):
    """The record of one Embed call."""

    def __init__(self, request_id: str, model: ServedModel, *, tracer: Tracer | None = None) -> None:
        """Begin the record of a call on `model`, now. With `tracer`, it is traced."""
        super().__init__(
            "embed",
            request_id=request_id,
            model_id=model.id,
            requests=metrics.REQUESTS,
            seconds=metrics.REQUEST_SECONDS,
            tracer=tracer,
            method=METHOD,
        )
        self._admitted_at: float | None = None
        self._model: Final = model
        self.texts = 0
        self.tokens = 0
        self._tokenize_seconds = 0.0

    def admit(self, *, texts: int, tokens: int) -> None:
        """Note the size of the call, once its texts are tokenized."""
        self._tokenize_seconds = self._elapsed
        self.texts, self.tokens, self._admitted_at = texts, tokens, time.perf_counter()
        self._model.load.texts_in_flight += texts

    def _spans(self, trace: LocalTrace, error: str | None) -> list[Span]:
        now, admitted_at = time.perf_counter(), self._admitted_at
        if admitted_at is None:
            return [trace.span("tokenize", trace.began, now)]
        attributes: dict[str, Value | None] = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "vilix",
            "gen_ai.request.model": self._model_id,
            "gen_ai.usage.input_tokens": self.tokens,
            "vilix.texts": self.texts,
            "vilix.request.id": self._request_id,
        }
        engine = trace.span(
            f"embeddings {self._model_id}",
            admitted_at,
            now,
            context=self._engine_context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            error=error,
        )
        return [trace.span("tokenize", trace.began, admitted_at), engine]

    def timings(self) -> pb.Timings:
        """Return the timings of a call whose texts have been embedded just now."""
        return pb.Timings(
            tokenize=_duration(self._tokenize_seconds), embed=_duration(self._elapsed - self._tokenize_seconds)
        )

    def _begin(self) -> None:
        self._model.load.in_flight += 1

    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        self._model.load.in_flight -= 1
        self._model.load.texts_in_flight -= self.texts
        if succeeded:
            metrics.TEXTS.labels(self._model.id).inc(self.texts)
            metrics.TOKENS.labels(self._model.id).inc(self.tokens)
        return {"texts": self.texts, "tokens": self.tokens}


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(int(seconds * 1e6))
    return duration
