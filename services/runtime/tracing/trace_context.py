"""The context of a trace, as the W3C headers `traceparent` and `tracestate` carry it between services.

https://www.w3.org/TR/trace-context-2/
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_FORMAT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER: Final = re.compile(
    r"([a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]",
    re.ASCII,
)
MOST_STATE: Final = 512
"""The most characters of `tracestate` that are passed on: what the standard asks for."""
_MOST_MEMBERS: Final = 32
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace. The ids are lower-case hexadecimal, of 32 and 16 digits."""

    trace_id: str
    span_id: str
    is_sampled: bool
    """Whether the caller exports its spans of the trace for certain."""
    state: str = ""
    """The state that vendors have added. It is passed on unchanged."""

    def child(self) -> TraceContext:
        """Return the context of a new span of the trace."""
        return TraceContext(self.trace_id, new_span_id(), self.is_sampled, self.state)

    def traceparent(self) -> str:
        """Return the header of this name."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    def headers(self) -> dict[str, str]:
        """Return the headers that make this span the parent of the next service's."""
        own = {TRACEPARENT: self.traceparent()}
        return own | {TRACESTATE: self.state} if self.state else own


CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("trace", default=None)
"""The innermost span of the request that runs in this task, or that its caller has sent."""


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the context in two headers; None if `traceparent` is not valid. A `tracestate` that is not is dropped."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Only later versions may have further fields.
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and rest is not None):
        return None
    state = tracestate if tracestate and _is_state(tracestate) else ""
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state)


def _is_state(text: str) -> bool:
    members = [member.strip(" \t") for member in text.split(",")] if len(text) <= MOST_STATE else []
    matches = [_MEMBER.fullmatch(member) for member in members if member]
    keys = {match[1] for match in matches if match is not None}
    return 0 < len(keys) == len(matches) <= _MOST_MEMBERS


def new_trace_id() -> str:
    """Return the id of a new trace, whose last digits are random, as samplers need them."""
    return f"{secrets.randbits(128) or 1:032x}"


def new_span_id() -> str:
    """Return the id of a new span."""
    return f"{secrets.randbits(64) or 1:016x}"
