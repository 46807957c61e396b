"""Watches whether Redis is set up to keep keys: what it evicts, whether it persists, and whether it is full.

The settings are read at the start and every few seconds. A managed Redis may forbid CONFIG; then INFO says what it can, and
the rest is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from services.gateway import metrics
from services.gateway.redis_link import RedisAwayError, RedisLink

LOOK_SECONDS: Final = 10.0
UNKNOWN: Final = "unknown"
NO_EVICTION: Final = "noeviction"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """How Redis is set up. On a cluster, the worst of its nodes."""

    eviction: str = UNKNOWN
    """Its `maxmemory-policy`."""
    persistence: str = UNKNOWN
    """`aof`, `rdb`, `off` or `unknown`."""

    def risks(self) -> dict[str, bool | None]:
        """What may lose keys; None where that is not known."""
        return {
            "eviction": None if self.eviction == UNKNOWN else self.eviction != NO_EVICTION,
            "no_persistence": None if self.persistence == UNKNOWN else self.persistence == "off",
        }


class RedisCondition:
    """The condition of the Redis of `link`, between `open` and `close`."""

    def __init__(self, link: RedisLink) -> None:
        """Nothing is known before the first look."""
        self.now = Condition()
        self._link: Final = link
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._show()
        self._task = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Look once. Raises RedisAwayError."""
        found = await self._link.run(read)
        if found != self.now:
            self.now = found
            self._warn()
        self._show()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(RedisAwayError):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _warn(self) -> None:
        policy, persistence = self.now.eviction, self.now.persistence
        risks = self.now.risks()
        if risks["eviction"]:
            _log.warning(
                "redis may evict keys, limits and usage when its memory is full; set maxmemory-policy noeviction",
                extra={"maxmemory_policy": policy},
            )
        if risks["no_persistence"]:
            _log.warning("redis does not persist: keys are gone when it restarts; set appendonly yes")
        if not any(risks.values()):
            _log.info("redis is set up", extra={"maxmemory_policy": policy, "persistence": persistence})

    def _show(self) -> None:
        for cause, holds in self.now.risks().items():
            metrics.REDIS_KEYS_AT_RISK.labels(cause).set(math.nan if holds is None else holds)


async def read(redis: Redis) -> Condition:
    """The condition of a server, or of all masters of a cluster."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        conditions = [await _read(redis, target_nodes=node) for node in redis.get_primaries()]
        return _worst(conditions)
    return await _read(redis)


async def _read(redis: Any, **target: Any) -> Condition:
    settings = await _config(redis, **target)
    memory = await _info(redis, "memory", **target)
    persisted = await _info(redis, "persistence", **target)
    append, save = settings.get("appendonly"), settings.get("save")
    if append is None and "aof_enabled" in persisted:
        append = "yes" if int(persisted["aof_enabled"]) else "no"
    persistence = UNKNOWN
    if append == "yes":
        persistence = "aof"
    elif append == "no" and save is not None:
        persistence = "rdb" if save else "off"
    policy = settings.get("maxmemory-policy") or memory.get("maxmemory_policy") or UNKNOWN
    return Condition(str(policy), persistence)


async def _config(redis: Any, **target: Any) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in ("maxmemory-policy", "appendonly", "save"):
        try:
            found |= await redis.config_get(name, **target)
        except RedisError as error:
            if not _is_refusal(error):
                raise
    return found


async def _info(redis: Any, section: str, **target: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = await redis.info(section, **target)
    except RedisError as error:
        if not _is_refusal(error):
            raise
        return {}
    return found


def _is_refusal(error: RedisError) -> bool:
    """Whether the server answered, and does not do that."""
    return isinstance(error, ResponseError)


def _worst(conditions: list[Condition]) -> Condition:
    evictions = [each.eviction for each in conditions]
    kinds = [each.persistence for each in conditions]
    evicting = [policy for policy in evictions if policy not in (NO_EVICTION, UNKNOWN)]
    eviction = evicting[0] if evicting else UNKNOWN if UNKNOWN in evictions else NO_EVICTION
    return Condition(eviction, next((kind for kind in ("off", UNKNOWN, "rdb", "aof") if kind in kinds), UNKNOWN))
