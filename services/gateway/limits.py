"""Admission: takes what a request needs from its key's limits, in one script, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from services.gateway import metrics
from services.gateway.errors import ApiError, retry_headers
from services.gateway.keys import Key

_SCRIPT: Final = (Path(__file__).parent / "limits.lua").read_text()


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in."""

    headers: dict[str, str]
    """What the answer says about the limits."""


class Limits:
    """The limits of all keys."""

    def __init__(self, redis: Redis) -> None:
        """Keeps everything in `redis`."""
        self._script: Final = redis.register_script(_SCRIPT)

    async def admit(self, key: Key) -> Admission:
        """Take one request of `key`. Raises ApiError (429) that says which limit was reached, and when to come back."""
        if key.rpm is None:
            return Admission({})
        bucket = f"vilix:{{{key.shard}}}:limit:{key.id}:requests"
        allowed, remaining, reset, wait = await self._script(keys=[bucket], args=[key.rpm])
        headers = {
            "x-ratelimit-limit-requests": str(key.rpm),
            "x-ratelimit-remaining-requests": str(remaining),
            "x-ratelimit-reset-requests": duration(reset / 1e6),
        }
        if allowed:
            return Admission(headers)
        metrics.LIMITS_REFUSED.labels("requests").inc()
        raise ApiError(
            429,
            f"Rate limit reached: {key.rpm} requests per minute for this key. Try again in {duration(wait / 1e6)}.",
            type="rate_limit_error",
            code="rate_limit_exceeded",
            headers={**headers, **retry_headers(wait / 1e6)},
        )


def duration(seconds: float) -> str:
    """A duration as OpenAI's headers write it: 12ms, 5s, 1m30s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes:.0f}m{shown}" if minutes else shown
