"""Tells a Redis that refuses writes from one that does not answer: it can be read, and says why it takes no writes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from services.gateway.redis.shards import SHARDS, shard_name


class WriteRejection(StrEnum):
    """Why Redis refuses writes. The values are those of `redis` in /healthz and of the metrics' label `cause`."""

    FULL = "full"
    """Its memory is used up, and its policy evicts nothing (`OOM`)."""
    READ_ONLY = "read_only"
    """It is a replica, or a primary that was demoted (`READONLY`)."""
    PERSISTENCE_FAILED = "persistence_failed"
    """It could not write its data to disk (`MISCONF`)."""
    NO_REPLICAS = "no_replicas"
    """It has fewer replicas than it must have for a write (`NOREPLICAS`)."""


_CODES: Final = {
    "OOM": WriteRejection.FULL,
    "READONLY": WriteRejection.READ_ONLY,
    "MISCONF": WriteRejection.PERSISTENCE_FAILED,
    "NOREPLICAS": WriteRejection.NO_REPLICAS,
}
_PARSED_CODES: Final = {"OutOfMemoryError": WriteRejection.FULL, "ReadOnlyError": WriteRejection.READ_ONLY}
"""redis-py takes the code away from the message of these exceptions."""
# At the start; after the name of a command in redis-py's pipeline; and as old servers wrap what a script met.
_CODE: Final = re.compile(r"(?:^|: -?|: \([\"'])(" + "|".join(_CODES) + ") ")


def rejection_of(error: BaseException) -> WriteRejection | None:
    """The reason for which Redis refused a write, or None where `error` is of another kind."""
    if not isinstance(error, RedisError):
        return None
    if parsed := _PARSED_CODES.get(type(error).__name__):
        return parsed
    found = _CODE.search(str(error))
    return _CODES[found[1]] if found else None


async def try_writing(redis: Redis) -> WriteRejection | None:
    """Whether every node that has keys takes writes: None, or why not. Nothing is written. Raises RedisError."""
    # An empty text over the start of a key that does not exist is a write for the server's checks, and changes nothing.
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(SHARDS):
            pipeline.setrange(f"vilix:{{{shard_name(number)}}}:write-probe", 0, "")
        try:
            await pipeline.execute()
        except ResponseError as error:
            # Other replies, for example of an ACL without SETRANGE, tell nothing about writes.
            return rejection_of(error)
    return None
