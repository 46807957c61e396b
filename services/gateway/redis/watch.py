"""Watches how Redis is configured: one that evicts, or does not persist, can lose keys and limits without an error.

`CONFIG GET` and `INFO` are sent to every primary. Managed services and ACLs often forbid `CONFIG`; `INFO` alone is then
used, and what neither reports is unknown. Of several nodes, the worst counts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from services.gateway import metrics
from services.gateway.redis.link import RedisLink
from services.runtime.end_tasks import end_tasks

UNKNOWN: Final = "unknown"
NO_EVICTION: Final = "noeviction"
READ_SECONDS: Final = 5.0
_log: Final = logging.getLogger(__name__)


class Persistence(StrEnum):
    """The ways in which Redis persists data, from the worst to the best."""

    FAILING = "failing"
    """It is configured to persist, and its last attempt failed."""
    OFF = "off"
    UNKNOWN = UNKNOWN
    SNAPSHOTS = "snapshots"
    """Periodic snapshots: a restart loses what was written since the last one."""
    AOF = "aof"
    """An append-only file of every write."""


_WORST_FIRST: Final = list(Persistence)
_PERSISTS: Final = {Persistence.FAILING: 0.0, Persistence.OFF: 0.0, Persistence.UNKNOWN: math.nan}


@dataclass(frozen=True, slots=True)
class ServerState:
    """The persistence of Redis, or of the worst node of a cluster."""

    eviction: str = UNKNOWN
    """The eviction policy by Redis's name, or unknown."""
    persistence: Persistence = Persistence.UNKNOWN
    memory_ratio: float = math.nan
    """Used memory as a part of maxmemory; NaN where there is no maxmemory, or it is not reported."""

    @property
    def evicts(self) -> float:
        """1 if keys can be evicted, 0 if not, NaN if that is unknown."""
        return math.nan if self.eviction == UNKNOWN else float(self.eviction != NO_EVICTION)

    @property
    def persists(self) -> float:
        """1 if a restart keeps keys, 0 if not, NaN if that is unknown."""
        return _PERSISTS.get(self.persistence, 1.0)


class RedisWatch:
    """Reads the configuration of Redis at once, every `seconds`, and when it is back or begins to reject writes.

    `state` is the latest result; it is exported as metrics, and its changes are logged. Call `open` and `close`.
    """

    def __init__(self, link: RedisLink, *, seconds: float) -> None:
        self.state = ServerState()
        self._link: Final = link
        self._seconds: Final = seconds
        self._task: asyncio.Task[None] | None = None
        self._export()

    def open(self) -> None:
        """Start watching."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _watch(self) -> None:
        while True:
            self._link.changed.clear()
            # While Redis does not reply, the latest state is kept; RedisLink reports that it does not.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    state = await read_state(self._link.redis)
                self._note(state)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._link.changed.wait()

    def _note(self, state: ServerState) -> None:
        before, self.state = self.state, state
        self._export()
        if state.eviction != before.eviction:
            _log_eviction(state.eviction)
        if state.persistence != before.persistence:
            _log_persistence(state.persistence)

    def _export(self) -> None:
        metrics.REDIS_EVICTS.set(self.state.evicts)
        metrics.REDIS_PERSISTS.set(self.state.persists)
        metrics.REDIS_MEMORY.set(self.state.memory_ratio)


async def read_state(redis: Redis) -> ServerState:
    """Read the state of every primary, and return the worst of each property. Raises RedisError, OSError."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        targets: list[dict[str, Any]] = [{"target_nodes": node} for node in redis.get_primaries()]
    else:
        targets = [{}]
    states = [await _read_node(redis, target) for target in targets]
    policies = [state.eviction for state in states]
    evicting = [policy for policy in policies if policy not in (NO_EVICTION, UNKNOWN)]
    unknown = [policy for policy in policies if policy == UNKNOWN]
    return ServerState(
        eviction=(evicting or unknown or [NO_EVICTION])[0],
        persistence=min((state.persistence for state in states), key=_WORST_FIRST.index, default=Persistence.UNKNOWN),
        memory_ratio=max(
            (state.memory_ratio for state in states if not math.isnan(state.memory_ratio)), default=math.nan
        ),
    )


async def _read_node(redis: Redis, target: dict[str, Any]) -> ServerState:
    memory = await _ask(redis, "INFO", "memory", target)
    persistence = await _ask(redis, "INFO", "persistence", target)
    config: dict[str, Any] = {}
    for name in ("maxmemory-policy", "appendonly", "save"):
        config |= await _ask(redis, "CONFIG GET", name, target)
    maximum = int(memory.get("maxmemory", 0))
    return ServerState(
        eviction=str(config.get("maxmemory-policy") or memory.get("maxmemory_policy") or UNKNOWN),
        persistence=_persistence(config, persistence),
        memory_ratio=int(memory.get("used_memory", 0)) / maximum if maximum else math.nan,
    )


async def _ask(redis: Redis, command: str, argument: str, target: dict[str, Any]) -> dict[str, Any]:
    """Return the names and values of a server's reply; nothing where it forbids or does not know the command."""
    try:
        reply = await redis.execute_command(command, argument, **target)  # type: ignore[no-untyped-call]  # redis-py's
    except ResponseError:
        return {}
    return dict(reply) if isinstance(reply, Mapping) else {}


def _persistence(config: Mapping[str, Any], info: Mapping[str, Any]) -> Persistence:
    appends = config["appendonly"] == "yes" if "appendonly" in config else info.get("aof_enabled")
    snapshots = config.get("save")
    if appends is None and snapshots is None:
        return Persistence.UNKNOWN
    if appends:
        failed = "err" in (info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status"))
        return Persistence.FAILING if failed else Persistence.AOF
    if snapshots:
        return Persistence.FAILING if info.get("rdb_last_bgsave_status") == "err" else Persistence.SNAPSHOTS
    # INFO alone does not report whether snapshots are on.
    return Persistence.UNKNOWN if snapshots is None else Persistence.OFF


def _log_eviction(policy: str) -> None:
    more = {"policy": policy}
    if policy == UNKNOWN:
        _log.warning("redis does not report its eviction policy; it must be noeviction", extra=more)
    elif policy == NO_EVICTION:
        _log.info("redis evicts no keys", extra=more)
    else:
        _log.warning("redis may evict keys and limits; set its maxmemory-policy to noeviction", extra=more)


def _log_persistence(persistence: Persistence) -> None:
    more = {"persistence": str(persistence)}
    match persistence:
        case Persistence.OFF:
            _log.warning("redis does not persist: its restart loses keys and limits; set appendonly to yes", extra=more)
        case Persistence.FAILING:
            _log.warning(
                "redis cannot persist: its restart loses keys and limits; look at its log and disk", extra=more
            )
        case Persistence.UNKNOWN:
            _log.warning("redis does not report whether it persists", extra=more)
        case Persistence.SNAPSHOTS:
            _log.info("redis persists by snapshots alone: its restart loses what was written since", extra=more)
        case Persistence.AOF:
            _log.info("redis persists", extra=more)
