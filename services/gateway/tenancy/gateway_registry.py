"""Counts the gateways that share a Redis, and ends the reservations of those that have died."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from functools import partial
from typing import Final

from redis.asyncio import Redis

from services.gateway import metrics
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.redis.script import Script
from services.gateway.redis.shards import SHARDS, shard_name
from services.gateway.tenancy import limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Subject
from services.runtime.end_tasks import end_tasks

GATEWAYS: Final = "vilix:gateways"
"""A sorted set of gateways, by the time of their last heartbeat."""
BEAT_SECONDS: Final = 5.0
GONE_SECONDS: Final = 3 * BEAT_SECONDS
_COUNT: Final = Script("""
-- Notes the heartbeat of a gateway, and returns how many gateways had one lately.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
-- The clock may have gone back: a heartbeat later than now counts as now.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  redis.call('ZADD', KEYS[1], now, name)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")
_OVERDUE: Final = Script("""
-- Returns ids of keys of a shard all of whose reservations have expired without being settled.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local overdue = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)
-- No reservation lasts ten minutes: the clock has gone back since it was renewed.
local ahead = string.format('%.0f', now + 600000000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ahead, '+inf', 'LIMIT', 0, 100)) do
  overdue[#overdue + 1] = id
end
return overdue
""")
_DUE: Final = [(f"vilix:{{{shard_name(number)}}}:due",) for number in range(SHARDS)]
"""The names of the sorted sets of keys by the time at which the last of their reservations expires, one per shard."""


class GatewayRegistry:
    """The registry of gateways, in which this one is registered between `open` and `close`."""

    def __init__(self, link: RedisLink) -> None:
        """Register through `link`."""
        self.gateways = 1
        """The number of gateways that were running when Redis was last available, including this one."""
        self._link: Final = link
        self._name: Final = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Register this gateway."""
        self._task = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """Unregister this gateway."""
        if self._task is not None:
            await end_tasks(self._task)
        with suppress(RedisAwayError):  # Without heartbeats it expires.
            await self._link.run(lambda redis: redis.zrem(GATEWAYS, self._name))

    async def _beat(self) -> None:
        while True:
            with suppress(RedisAwayError):
                self.gateways = await self._link.run(self._count)
                metrics.GATEWAYS.set(self.gateways)
                for key_ids in await self._link.run_many(_overdue):
                    for key_id in key_ids or ():
                        await self._link.run(partial(_reap, key_id))
            await asyncio.sleep(BEAT_SECONDS)

    async def _count(self, redis: Redis) -> int:
        return max(1, int(await _COUNT.run(redis, GATEWAYS, self._name, str(GONE_SECONDS))))


async def _overdue(redis: Redis) -> list[list[str] | BaseException]:
    return await _OVERDUE.run_many(redis, _DUE)


async def _reap(key_id: str, redis: Redis) -> None:
    await limits_script.show(redis, Subject(Key(id=key_id, name="-", created=0), "", UNLIMITED, UNLIMITED))
