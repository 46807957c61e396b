"""One span: a piece of work in a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.runtime.telemetry import without_keys
from services.runtime.tracing.trace_context import TraceContext

MOST_CHARACTERS = 256
"""The most characters of an attribute that a caller can choose."""

Value = str | bool | int | float | Sequence[str]


class SpanKind(Enum):
    """The role of a span. The values are those of opentelemetry.trace.SpanKind."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


@dataclass(slots=True)
class Span:
    """A span that has ended. Times are in nanoseconds since the epoch."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    kind: SpanKind
    begin: int
    end: int
    attributes: Mapping[str, Value | None] = field(default_factory=dict)
    """Those that are None are not exported."""
    error: str | None = None
    """The kind of the error with which it ended: `error.type`."""
    events: Sequence[tuple[str, int]] = ()
    """Names and times."""
    has_remote_parent: bool = False


def safe_text(text: str) -> str:
    """Return a caller's text as an attribute: short, and without API keys."""
    return without_keys(text[:MOST_CHARACTERS])
