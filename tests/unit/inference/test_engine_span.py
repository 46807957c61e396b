"""The span of a generation in the engine."""

from __future__ import annotations

from collections.abc import Sequence

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.engine_span import EngineUsage, engine_span
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.sampling import Sampling
from services.runtime.tracing.span import Span
from services.runtime.tracing.trace_context import CURRENT

USAGE = EngineUsage(
    prompt_tokens=1,
    completion_tokens=1,
    cached_tokens=0,
    reasoning_tokens=0,
    finish_reasons=["stop"],
    first_token_at=None,
    timings={},
)


def _export(spans: Sequence[Span]) -> None: ...


def test_parameters_are_those_that_the_client_sent() -> None:
    sampling = pb.SamplingParams(
        temperature=0.7, top_p=0.95, frequency_penalty=-0.1, seed=2**40 + 1, max_tokens=123456789
    )
    request = pb.GenerateRequest(model="m", prompt="a", sampling=sampling)
    trace = Tracer(Sampling(), 30.0, _export).begin(None)
    try:
        span = engine_span(trace, request, USAGE, request_id="r", began=trace.began, context=None, error=None)
    finally:
        CURRENT.set(None)
    names = ("temperature", "top_p", "frequency_penalty", "seed", "max_tokens", "top_k")
    values = [span.attributes.get(f"gen_ai.request.{name}") for name in names]
    assert values == [0.7, 0.95, -0.1, 2**40 + 1, 123456789, None]
