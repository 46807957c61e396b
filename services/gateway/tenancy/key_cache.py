"""Finds keys by their secrets, and remembers them for a moment, in case Redis goes away."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Final

from services.gateway import metrics
from services.gateway.errors import ApiError, unavailable
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.key_records import NewerRecordError
from services.gateway.tenancy.secret import digest, is_well_formed

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key, and as what it was found."""

    key: Key
    fingerprint: Fingerprint
    """Whoever admits a request has it proven that the key is still the same: a body may take long."""
    secret: str = field(repr=False)
    """The key itself, by which it can be looked up again."""
    redis_was_away: bool = False
    """Whether the key was remembered, because Redis could not be asked."""


class KeyCache:
    """The keys that this gateway has seen. While Redis answers, it is asked every time: revoked is revoked."""

    def __init__(self, link: RedisLink, *, grace_seconds: float) -> None:
        """Keep a key that was found in the last `grace_seconds` valid while Redis is away."""
        self._link: Final = link
        self._grace: Final = grace_seconds
        self._verified: Final[dict[str, tuple[float, Key, Fingerprint]]] = {}
        """By the secret's digest: when the key was found last, and as what. Secrets themselves are not kept."""
        self._swept = time.monotonic()

    def recall(self, secret: str) -> Caller | None:
        """Return the key with this secret as it was when it was found last, if that was not long ago.

        It may have been revoked since.
        """
        verified, key, fingerprint = self._verified.get(digest(secret), (float("-inf"), None, None))
        if key is None or fingerprint is None or time.monotonic() - verified > self._grace:
            return None
        return Caller(key, fingerprint, secret)

    async def find(self, secret: str) -> Caller | None:
        """Return the key with this secret, or None. Raises ApiError (503) when that cannot be told."""
        if not is_well_formed(secret):
            return None
        hashed = digest(secret)
        try:
            key, fingerprint = await self._link.run(lambda redis: keys.find_with_proof(redis, secret))
        except RedisAwayError:
            return self._remembered(secret)
        except NewerRecordError as error:
            # It may restrict the key in a way that this version does not know.
            _log.error("a key is rejected: %s", error)
            raise keys_unknown() from None
        if key is None or fingerprint is None:
            self._verified.pop(hashed, None)
            return None
        if self._grace:
            self._verified[hashed] = (time.monotonic(), key, fingerprint)
            self._sweep()
        return Caller(key, fingerprint, secret)

    def _remembered(self, secret: str) -> Caller:
        caller = self.recall(secret)
        expires = caller.key.expires if caller is not None else None
        if caller is None or (expires is not None and expires <= time.time()):
            metrics.REDIS_AWAY.labels("key_rejected").inc()
            raise keys_unknown()
        metrics.REDIS_AWAY.labels("key_grace").inc()
        return replace(caller, redis_was_away=True)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept > self._grace:
            self._swept = now
            for hashed in [each for each, (verified, *_) in self._verified.items() if now - verified > self._grace]:
                del self._verified[hashed]


def keys_unknown() -> ApiError:
    """Return a 503: nobody can tell whether a key is valid."""
    return unavailable("Keys cannot be checked at the moment. Please try again in a few seconds.")
