"""The span of a generation in the engine, with OpenTelemetry's attributes for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/client-inference.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.tracing.local_trace import LocalTrace
from services.runtime.tracing.span import Span, SpanKind, Value, safe_text
from services.runtime.tracing.trace_context import TraceContext

METHOD: Final = f"{pb.DESCRIPTOR.services_by_name['InferenceService'].full_name}/Generate"
"""The method that the span of a call names. Calls of GenerateMany share a stream."""
_SAMPLING: Final = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
"""Parameters that have an attribute of the same name."""


@dataclass(frozen=True, kw_only=True)
class EngineUsage:
    """The use that a generation made of the engine."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    finish_reasons: Sequence[str]
    first_token_at: float | None
    """The time of `time.perf_counter`."""
    timings: Mapping[str, float]
    """The engine's own, in seconds: queued_s, prefill_s and decode_s."""


def engine_span(
    trace: LocalTrace,
    request: pb.GenerateRequest,
    usage: EngineUsage,
    *,
    request_id: str,
    began: float,
    context: TraceContext | None,
    error: str | None,
) -> Span:
    """Return the span of a generation, which ends now. `context` was passed on to the engine."""
    operation = "chat" if request.messages else "text_completion"
    model, first = safe_text(request.model), usage.first_token_at
    sampling = request.sampling
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vilix",
        "gen_ai.request.model": model,
        "gen_ai.request.choice.count": request.n if request.n > 1 else None,
        **{f"gen_ai.request.{name}": _parameter(sampling, name) for name in _SAMPLING},
        "gen_ai.response.finish_reasons": usage.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": None if first is None else round(first - began, 6),
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
        "vilix.request.id": request_id,
        "vilix.engine.queue_seconds": usage.timings.get("queued_s"),
        "vilix.engine.prefill_seconds": usage.timings.get("prefill_s"),
        "vilix.engine.decode_seconds": usage.timings.get("decode_s"),
    }
    return trace.span(
        f"{operation} {model}",
        began,
        perf_counter(),
        context=context,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        error=error,
        events=[] if first is None else [("first token", first)],
    )


def _parameter(sampling: pb.SamplingParams, name: str) -> int | float | None:
    """Return a parameter. Of a number in single precision, the digits that the client sent."""
    if not sampling.HasField(name):  # type: ignore[arg-type]  # the names are those of fields
        return None
    value: int | float = getattr(sampling, name)
    return float(f"{value:.7g}") if isinstance(value, float) else value
