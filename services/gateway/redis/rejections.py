"""Recognises a Redis that replies and rejects writes, and the reason: it can still be read."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from services.gateway.redis.shards import SHARDS, shard_name


class WriteRejection(StrEnum):
    """The reason for which Redis rejects writes: the value of `redis` in /healthz and of the metrics' label `cause`."""

    FULL = "full"
    """Its memory is used up, and its policy evicts nothing (`OOM`)."""
    READ_ONLY = "read_only"
    """It is a replica, or a primary that was demoted (`READONLY`)."""
    PERSISTENCE_FAILED = "persistence_failed"
    """It failed to write its data to disk (`MISCONF`)."""
    NO_REPLICAS = "no_replicas"
    """It has fewer replicas than `min-replicas-to-write` (`NOREPLICAS`)."""


_CODES: Final = {
    "OOM": WriteRejection.FULL,
    "READONLY": WriteRejection.READ_ONLY,
    "MISCONF": WriteRejection.PERSISTENCE_FAILED,
    "NOREPLICAS": WriteRejection.NO_REPLICAS,
}
_PARSED_CODES: Final = {"OutOfMemoryError": WriteRejection.FULL, "ReadOnlyError": WriteRejection.READ_ONLY}
"""redis-py removes the code from the message of these exceptions."""
# The code stands at the start, after the name of a command in redis-py's pipeline, or in the error of a script, as old
# servers report it.
_CODE: Final = re.compile(r"(?:^|: -?|: \([\"'])(" + "|".join(_CODES) + ") ")


def rejection_of(error: BaseException) -> WriteRejection | None:
    """Return the reason for which Redis rejected a write, or None for an error of another kind."""
    if not isinstance(error, RedisError):
        return None
    if parsed := _PARSED_CODES.get(type(error).__name__):
        return parsed
    code = _CODE.search(str(error))
    return _CODES[code[1]] if code else None


async def try_writing(redis: Redis) -> WriteRejection | None:
    """Return why a node that has keys rejects writes, or None. Nothing is written. Raises RedisError."""
    # To write an empty text at the start of a missing key passes the server's checks of a write, and changes nothing.
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(SHARDS):
            pipeline.setrange(f"vilix:{{{shard_name(number)}}}:write-probe", 0, "")
        try:
            await pipeline.execute()
        except ResponseError as error:
            # Other errors, for example those of an ACL without SETRANGE, say nothing about writes.
            return rejection_of(error)
    return None
