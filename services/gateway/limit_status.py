"""How a key's limits stand, as answers report it. Each API has its own headers and fields for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The state of one limit per minute."""

    limit: int
    remaining: int
    reset: float
    """Seconds until nothing of it is used any more."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits per minute that a response reports; None for one that the key does not have."""

    requests: Window | None = None
    tokens: Window | None = None


NO_LIMITS = RateLimits()


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """The budget that ended a running answer."""

    limit: str
    """daily_tokens or monthly_tokens."""
    scope: str
    """key or model."""

    def to_object(self) -> dict[str, str]:
        """Return the object `vilix` of the answer that the budget ended."""
        return {"ended_by": self.limit, "scope": self.scope}


def duration(seconds: float) -> str:
    """Return a duration in the notation of 12ms, 5s and 1m30s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes:.0f}m{shown}" if minutes else shown
