"""Finds keys by their secrets, and caches them for a while in case Redis goes away."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from services.gateway import metrics
from services.gateway.credential import Credential
from services.gateway.errors import ApiError, unavailable
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.key_records import NewerRecordError
from services.gateway.tenancy.secret import digest, is_well_formed
from services.runtime.messages.message import Message

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The key of a request, as it was when it was looked up."""

    key: Key
    fingerprint: Fingerprint
    """Checked again at admission, because the key may have changed while the body was received."""
    credential: Credential
    """The API key itself, to look it up again."""
    redis_was_away: bool = False
    """Whether the key comes from the cache because Redis was away."""


class KeyCache:
    """The keys that this gateway has found. `find` asks Redis if it is available, so that revoking works at once."""

    def __init__(self, link: RedisLink, *, grace_seconds: float) -> None:
        """Keep a key valid for `grace_seconds` after it was found, while Redis is away."""
        self._link: Final = link
        self._grace: Final = grace_seconds
        self._verified: Final[dict[str, tuple[float, Key, Fingerprint]]] = {}
        """The time and the result of the last look-up, by the secret's digest. Secrets themselves are not kept."""
        self._swept = time.monotonic()

    def recall(self, credential: Credential) -> Caller | None:
        """Return the key of this credential as it was last found, if that was at most `grace_seconds` ago.

        It may have been revoked since.
        """
        verified, key, fingerprint = self._verified.get(digest(credential.secret), (float("-inf"), None, None))
        if key is None or fingerprint is None or time.monotonic() - verified > self._grace:
            return None
        return Caller(key, fingerprint, credential)

    async def find(self, credential: Credential) -> Caller | None:
        """Return the key of this credential, None if it is not valid. Raises ApiError (503) if it cannot be checked."""
        secret = credential.secret
        if not is_well_formed(secret):
            return None
        hashed = digest(secret)
        try:
            key, fingerprint = await self._link.run(lambda redis: keys.find_with_fingerprint(redis, secret))
        except RedisAwayError:
            return self._cached(credential)
        except NewerRecordError as error:
            # The newer record may restrict the key in a way that this version does not know.
            _log.error("a key is rejected: %s", error)
            raise keys_unknown() from None
        if key is None or fingerprint is None:
            self._verified.pop(hashed, None)
            return None
        if self._grace:
            self._verified[hashed] = (time.monotonic(), key, fingerprint)
            self._sweep()
        return Caller(key, fingerprint, credential)

    def _cached(self, credential: Credential) -> Caller:
        caller = self.recall(credential)
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
    """Return a 503 for a request whose key cannot be checked."""
    return unavailable(Message("keys_not_checked"))
