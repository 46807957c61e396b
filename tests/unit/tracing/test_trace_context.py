"""The W3C context of a trace."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.runtime.tracing.trace_context import MOST_STATE, TraceContext, new_span_id, new_trace_id, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"
HEADERS = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"\A[0-9a-fA-F]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z0-9]*)?\Z"),
    st.builds(lambda at, by: VALID[:at] + by + VALID[at + 1 :], st.integers(0, len(VALID)), st.text(max_size=2)),
)


MEMBERS = st.from_regex(r"\A[ \t]?[a-z0-9@*]{1,4}=[ -~]{0,4}\Z")
STATES = st.one_of(st.lists(st.one_of(MEMBERS, st.text(max_size=3)), max_size=40).map(",".join), st.text(max_size=20))


def test_a_valid_header_is_read_and_written_again() -> None:
    context = parse(VALID, "vendor=1,other=2")
    assert context == TraceContext(TRACE, SPAN, is_sampled=True, state="vendor=1,other=2")
    assert context.headers() == {"traceparent": VALID, "tracestate": "vendor=1,other=2"}
    unsampled = parse(f"00-{TRACE}-{SPAN}-02")
    assert unsampled is not None
    assert unsampled.headers() == {"traceparent": f"00-{TRACE}-{SPAN}-00"}


def test_a_later_version_may_have_more_fields() -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be") == TraceContext(TRACE, SPAN, is_sampled=True)
    assert parse(f"00-{TRACE}-{SPAN}-01-more") is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        VALID.upper(),
        f" {VALID}",
        f"{VALID}\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_a_malformed_header_is_ignored(header: str) -> None:
    assert parse(header, "vendor=1") is None


@pytest.mark.parametrize(
    "state",
    ["a=\x00", "a=é", "a=1\n", "a", "a=1,a=2", "A=1", ",", f"a={'1' * 600}", ",".join(f"k{n}=1" for n in range(33))],
)
def test_a_state_that_no_header_may_have_is_dropped(state: str) -> None:
    assert parse(VALID, state) == TraceContext(TRACE, SPAN, is_sampled=True)


@given(HEADERS)
def test_what_is_read_is_what_opentelemetry_reads(header: str) -> None:
    ours = parse(header)
    theirs = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": header})).get_span_context()
    # OpenTelemetry also strips the header, and accepts upper-case letters, which the standard forbids.
    if ours is not None:
        assert theirs.is_valid
        assert (f"{theirs.trace_id:032x}", f"{theirs.span_id:016x}") == (ours.trace_id, ours.span_id)
        assert theirs.trace_flags.sampled == ours.is_sampled
        assert parse(ours.traceparent()) == ours
    elif header == header.strip().lower():
        assert not theirs.is_valid


@given(STATES)
def test_a_state_is_passed_on_if_opentelemetry_can_read_it(state: str) -> None:
    context = parse(VALID, state)
    assert context is not None
    if context.state:
        assert context.state == state
        assert len(TraceState.from_header([state])) > 0
    elif len(state) <= MOST_STATE and state.count(",") < 32:
        assert len(TraceState.from_header([state])) == 0


def test_new_ids_have_the_lengths_of_the_standard_and_differ() -> None:
    traces, spans = {new_trace_id() for _ in range(100)}, {new_span_id() for _ in range(100)}
    assert len(traces) == len(spans) == 100
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traces)
    assert all(re.fullmatch(r"[0-9a-f]{16}", span) for span in spans)
    child = TraceContext(TRACE, SPAN, is_sampled=False, state="a=1").child()
    assert (child.trace_id, child.is_sampled, child.state) == (TRACE, False, "a=1")
    assert child.span_id != SPAN
