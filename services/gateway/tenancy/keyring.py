"""Finds keys by their secrets, and remembers them for a moment, in case Redis goes away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from services.gateway import metrics
from services.gateway.errors import ApiError, unavailable
from services.gateway.redis.redis_link import RedisAwayError, RedisLink
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Key, Proof
from services.gateway.tenancy.secret import digest, is_well_formed


@dataclass(frozen=True, slots=True)
class Found:
    """A key, and as what it was found."""

    key: Key
    proof: Proof
    redis_was_away: bool = False
    """Whether it was remembered, because Redis could not be asked."""


class Keyring:
    """The keys that this gateway has seen. While Redis answers, it is asked every time: revoked is revoked."""

    def __init__(self, link: RedisLink, *, grace_seconds: float) -> None:
        """A key that was found in the last `grace_seconds` stays valid while Redis is away."""
        self._link: Final = link
        self._grace: Final = grace_seconds
        self._verified: Final[dict[str, tuple[float, Key, Proof]]] = {}
        self._swept = time.monotonic()

    def recall(self, secret: str) -> tuple[Key, Proof] | None:
        """The key with this secret as it was when it was found last, if that was not long ago. It may be revoked since."""
        verified, key, proof = self._verified.get(digest(secret), (float("-inf"), None, None))
        if key is None or proof is None or time.monotonic() - verified > self._grace:
            return None
        return key, proof

    async def find(self, secret: str) -> Found | None:
        """The key with this secret, or None. Raises ApiError (503) when that cannot be told."""
        if not is_well_formed(secret):
            return None
        hashed = digest(secret)
        try:
            key, proof = await self._link.run(lambda redis: keys.find_with_proof(redis, secret))
        except RedisAwayError:
            return self._remembered(hashed)
        if key is None or proof is None:
            self._verified.pop(hashed, None)
        elif self._grace:
            self._verified[hashed] = (time.monotonic(), key, proof)
            self._sweep()
        return Found(key, proof) if key is not None and proof is not None else None

    def _remembered(self, hashed: str) -> Found:
        verified, key, proof = self._verified.get(hashed, (float("-inf"), None, None))
        expired = key is not None and key.expires is not None and key.expires <= time.time()
        if key is None or proof is None or expired or time.monotonic() - verified > self._grace:
            metrics.REDIS_AWAY.labels("key_refused").inc()
            raise keys_unknown()
        metrics.REDIS_AWAY.labels("key_grace").inc()
        return Found(key, proof, redis_was_away=True)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > self._grace:
            self._swept = now
            for hashed in [each for each, (verified, *_) in self._verified.items() if now - verified > self._grace]:
                del self._verified[hashed]


def keys_unknown() -> ApiError:
    """A 503: nobody can tell whether a key is valid."""
    return unavailable("Keys cannot be checked at the moment. Please try again in a few seconds.")
