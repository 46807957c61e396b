"""The decision about a trace's spans before they end: by the ratio of its id, or as its caller has decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.runtime.tracing.trace_context import TraceContext

_DEFAULT: Final = "parentbased_traceidratio"
_PARENT_BASED: Final = "parentbased_"
_RATIOS: Final = {"always_on": 1.0, "always_off": 0.0}
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_LIMIT: Final = 1 << 64


@dataclass(frozen=True)
class Sampling:
    """A ratio of all traces, chosen by their ids as OpenTelemetry's TraceIdRatioBased does."""

    ratio: float = 1.0
    follows_parent: bool = True
    """Whether a caller's own decision counts instead of the ratio."""

    def samples(self, trace_id: str, parent: TraceContext | None) -> bool:
        """Return whether the trace is sampled. `parent` is the caller's span, if its decision may count."""
        if parent is not None and self.follows_parent:
            return parent.is_sampled
        return self.chooses(trace_id[16:])

    def chooses(self, digits: str) -> bool:
        """Return whether the ratio chooses these 16 random hexadecimal digits."""
        return int(digits, 16) < round(self.ratio * _LIMIT)


def read_sampling(environment: Mapping[str, str]) -> Sampling:
    """Read OpenTelemetry's variables of the sampler. Raises ValueError, which names the variable and its value."""
    name = environment.get(_SAMPLER) or _DEFAULT
    base = name.removeprefix(_PARENT_BASED)
    if base != "traceidratio" and base not in _RATIOS:
        known = ", ".join(prefix + base for base in ("traceidratio", *_RATIOS) for prefix in ("", _PARENT_BASED))
        raise ValueError(f"{_SAMPLER}={name!r} is not one of {known}")
    ratio = _RATIOS[base] if base in _RATIOS else _ratio(environment)
    return Sampling(ratio, name.startswith(_PARENT_BASED))


def _ratio(environment: Mapping[str, str]) -> float:
    text = environment.get(_ARGUMENT) or "1"
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"{_ARGUMENT}={text!r} must be a number from 0 to 1")
    return ratio
