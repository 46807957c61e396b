"""Finds revoked keys, whose records are kept for their usage and are on no list."""

from __future__ import annotations

from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_records import record_name
from services.gateway.tenancy.secret import digest, shard_of

_SOME_ID = "key_"


async def list_revoked(redis: Redis) -> list[Key]:
    """Return the keys that were revoked in the last 400 days, the latest first. It reads all names in the database."""
    pattern = record_name(_SOME_ID).replace(shard_of(digest(_SOME_ID)), "s[0-9][0-9]") + "*"
    revoked = []
    async for name in redis.scan_iter(match=pattern, count=1000):
        try:
            key = await keys.get(redis, str(name).rpartition(":key:")[2])
        except LookupError:
            continue
        if key.revoked is not None:
            revoked.append(key)
    return sorted(revoked, key=lambda key: (-(key.revoked or 0), key.name))
