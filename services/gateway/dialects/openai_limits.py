"""OpenAI's headers about limits."""

from __future__ import annotations

from typing import Final

from services.gateway.limit_status import RateLimits, Window, duration

UNLIMITED: Final = 2**31 - 1
"""The limit that is reported where there is none. OpenAI always sends a number, and its clients parse it as one."""


def limit_headers(limits: RateLimits) -> dict[str, str]:
    """Return `x-ratelimit-*`."""
    headers: dict[str, str] = {}
    for name, window in (("requests", limits.requests), ("tokens", limits.tokens)):
        shown = window or Window(UNLIMITED, UNLIMITED, 0)
        headers[f"x-ratelimit-limit-{name}"] = str(shown.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(shown.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(shown.reset)
    return headers
