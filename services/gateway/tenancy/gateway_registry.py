"""Counts the gateways that share a Redis, and ends the reservations of those that have died."""

from __future__ import annotations

import asyncio
import secrets
import time
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
AHEAD_MICROSECONDS: Final = 600_000_000
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
                for key_id in await self._link.run(_overdue):
                    await self._link.run(partial(_reap, key_id))
            await asyncio.sleep(BEAT_SECONDS)

    async def _count(self, redis: Redis) -> int:
        return max(1, int(await _COUNT.run(redis, GATEWAYS, self._name, str(GONE_SECONDS))))


async def _overdue(redis: Redis) -> list[str]:
    """Return the ids of keys all of whose reservations have expired without being settled."""
    # Reservations expire by Redis's clock. If ours is a little behind, they are only ended a little later.
    now = round(time.time() * 1e6)
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(SHARDS):
            name = f"vilix:{{{shard_name(number)}}}:due"
            pipeline.zrangebyscore(name, "-inf", now, start=0, num=100)
            # No reservation lasts that long: the clock has gone back since it was renewed.
            pipeline.zrangebyscore(name, now + AHEAD_MICROSECONDS, "+inf", start=0, num=100)
        shards = await pipeline.execute()
    return [str(key_id) for shard in shards for key_id in shard]


async def _reap(key_id: str, redis: Redis) -> None:
    await limits_script.show(redis, Subject(Key(id=key_id, name="-", created=0), "", UNLIMITED, UNLIMITED))
