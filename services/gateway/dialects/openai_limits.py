"""OpenAI's headers about limits."""

from __future__ import annotations

from services.gateway.limit_status import RateLimits, duration


def limit_headers(limits: RateLimits) -> dict[str, str]:
    """Return `x-ratelimit-*` for each limit that the key has."""
    headers: dict[str, str] = {}
    for name, window in (("requests", limits.requests), ("tokens", limits.tokens)):
        if window is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(window.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(window.remaining)
            headers[f"x-ratelimit-reset-{name}"] = duration(window.reset)
    return headers
