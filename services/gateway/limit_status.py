"""The state of a key's limits, as responses report it. Each API has its own headers and fields for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The state of one limit per minute."""

    limit: int
    remaining: int
    reset: float
    """Seconds until the whole limit is available again."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits per minute that a response reports; None for a limit that the key does not have."""

    requests: Window | None = None
    tokens: Window | None = None


NO_LIMITS = RateLimits()


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """The budget that ended a generation."""

    limit: str
    """daily_tokens, monthly_tokens, daily_cost, weekly_cost or monthly_cost."""
    scope: str
    """key or model."""


def duration(seconds: float) -> str:
    """Return a duration as messages and headers write it: 12ms, 5s or 1m30s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes:.0f}m{text}" if minutes else text
