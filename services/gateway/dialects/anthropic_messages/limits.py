"""Anthropic's headers about limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.gateway.limit_status import RateLimits


def limit_headers(limits: RateLimits) -> dict[str, str]:
    """Return `anthropic-ratelimit-*` for each limit that the key has. One limit counts tokens of both directions."""
    headers: dict[str, str] = {}
    for name, window in (("requests", limits.requests), ("tokens", limits.tokens)):
        if window is not None:
            reset = datetime.now(UTC) + timedelta(seconds=window.reset)
            headers[f"anthropic-ratelimit-{name}-limit"] = str(window.limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(window.remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers
