"""The decision which traces are exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from services.runtime.tracing import local_trace
from services.runtime.tracing.local_trace import LocalTrace, Tracer
from services.runtime.tracing.sampling import Sampling, read_sampling
from services.runtime.tracing.span import Span, SpanKind
from services.runtime.tracing.trace_context import TraceContext

NEVER, ALWAYS = Sampling(0.0), Sampling(1.0)
SAMPLED = TraceContext("a" * 32, "b" * 16, is_sampled=True)
UNSAMPLED = TraceContext("a" * 32, "b" * 16, is_sampled=False)


class Clock:
    """Stands in for the clock of traces."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 10**18


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(local_trace, "time", clock)
    return clock


class Exported:
    """Collects what is exported."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, spans: Sequence[Span]) -> None:
        self.spans += spans


def is_exported(sampling: Sampling, parent: TraceContext | None, **end: Any) -> bool:
    """Return whether a trace is exported that ends at once."""
    exported = Exported()
    trace = Tracer(sampling, 30.0, exported).begin(parent)
    trace.end(lambda: [root(trace)], **{"has_failed": False, **end})
    return bool(exported.spans)


def root(trace: LocalTrace) -> Span:
    return trace.root("root", kind=SpanKind.SERVER, attributes={}, error=None)


@given(st.integers(0, 2**128 - 1), st.floats(0, 1))
def test_the_ratio_chooses_the_traces_that_opentelemetry_chooses(trace_id: int, ratio: float) -> None:
    theirs = TraceIdRatioBased(ratio).should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE
    assert Sampling(ratio).samples(f"{trace_id:032x}", None) is theirs


def test_a_callers_decision_counts_instead_of_the_ratio() -> None:
    assert is_exported(NEVER, SAMPLED)
    assert not is_exported(ALWAYS, UNSAMPLED)
    assert is_exported(ALWAYS, None)
    assert not is_exported(NEVER, None)


def test_a_callers_decision_does_not_count_for_a_sampler_without_parents_or_a_caller_without_a_key() -> None:
    assert not is_exported(Sampling(0.0, follows_parent=False), SAMPLED)
    assert not is_exported(NEVER, SAMPLED, trusts_caller=False)
    assert is_exported(ALWAYS, UNSAMPLED, trusts_caller=False)


@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_caller_without_a_key_cannot_choose_an_id_that_is_always_exported(
    monkeypatch: pytest.MonkeyPatch, is_sampled: bool
) -> None:
    monkeypatch.setattr(local_trace, "new_span_id", lambda: "f" * 16)
    chosen = TraceContext("1" + "0" * 31, "b" * 16, is_sampled)
    assert not is_exported(Sampling(0.01), chosen, trusts_caller=False)
    monkeypatch.setattr(local_trace, "new_span_id", lambda: "0" * 15 + "1")
    assert is_exported(Sampling(0.01), TraceContext("f" * 32, "b" * 16, is_sampled), trusts_caller=False)


def test_failed_and_slow_requests_are_exported_always(clock: Clock) -> None:
    assert is_exported(NEVER, UNSAMPLED, has_failed=True)
    exported = Exported()
    tracer = Tracer(NEVER, 30.0, exported)
    for seconds, count in ((29.9, 0), (30.0, 1)):
        trace = tracer.begin(None)
        clock.now += seconds
        trace.end(lambda trace=trace: [root(trace)], has_failed=False)  # type: ignore[misc]  # no type for the default
        assert len(exported.spans) == count


def test_spans_are_made_only_for_traces_that_are_exported() -> None:
    made = []
    Tracer(NEVER, 30.0, Exported()).begin(None).end(lambda: made.append(1) or [], has_failed=False)
    assert made == []


def test_times_are_those_of_the_wall_clock(clock: Clock) -> None:
    trace = Tracer(ALWAYS, 30.0, Exported()).begin(SAMPLED)
    clock.now += 2.0
    whole, part = root(trace), trace.span("part", 100.5, 101.25, events=[("first", 101.0)])
    assert (whole.begin, whole.end) == (10**18, 10**18 + 2 * 10**9)
    assert (part.begin, part.end) == (10**18 + 5 * 10**8, 10**18 + 125 * 10**7)
    assert part.events == [("first", 10**18 + 10**9)]
    assert part.parent == whole.context
    assert (whole.parent, whole.has_remote_parent) == (SAMPLED, True)
    assert trace.follow().context.trace_id == SAMPLED.trace_id


def test_a_request_has_a_limited_number_of_spans() -> None:
    exported = Exported()
    trace = Tracer(ALWAYS, 30.0, exported).begin(None)
    for _ in range(1000):
        trace.call("127.0.0.1:1", "method")
    assert len(trace.calls) == local_trace.MOST_SPANS
    trace.end(lambda: [root(trace)] * 1000, has_failed=False)
    assert len(exported.spans) == local_trace.MOST_SPANS


def test_a_fault_of_the_export_does_not_end_the_request(caplog: pytest.LogCaptureFixture) -> None:
    def fail(spans: Sequence[Span]) -> None:
        raise OSError("no memory")

    trace = Tracer(ALWAYS, 30.0, fail).begin(None)
    trace.end(lambda: [root(trace)], has_failed=False)
    assert "a trace was not exported" in caplog.text


@pytest.mark.parametrize(
    ("environment", "sampling"),
    [
        ({}, Sampling(1.0, follows_parent=True)),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, Sampling(0.25, follows_parent=True)),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
            Sampling(0.5, follows_parent=False),
        ),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, follows_parent=False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on", "OTEL_TRACES_SAMPLER_ARG": "x"}, Sampling(1.0)),
    ],
)
def test_opentelemetrys_variables_are_read(environment: dict[str, str], sampling: Sampling) -> None:
    assert read_sampling(environment) == sampling


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "half", "nan"])
def test_a_wrong_ratio_is_named(ratio: str) -> None:
    with pytest.raises(ValueError, match=f"OTEL_TRACES_SAMPLER_ARG='{ratio}' must be a number from 0 to 1"):
        read_sampling({"OTEL_TRACES_SAMPLER_ARG": ratio})


def test_an_unknown_sampler_is_named() -> None:
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER='xray' is not one of traceidratio, parentbased_trace"):
        read_sampling({"OTEL_TRACES_SAMPLER": "xray"})
