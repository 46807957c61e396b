"""The usage of keys: counters per key, model, and day or month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from redis.asyncio import Redis

from services.gateway.tenancy.key import Key


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of usage. `requests` counts requests that have ended."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int | None = None
    """In the smallest unit of the currency; None if nothing had a price."""

    def __add__(self, other: Counts) -> Counts:
        """Return the sum."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in TOKEN_COUNTERS}
        costs = [counts.cost for counts in (self, other) if counts.cost is not None]
        return Counts(**sums, cost=sum(costs) if costs else None)

    def numbers(self) -> dict[str, int]:
        """Return the counters by name; the cost only if there is one."""
        return {name: value for name, value in asdict(self).items() if value is not None}


COUNTERS: Final = tuple(Counts.__dataclass_fields__)
TOKEN_COUNTERS: Final = tuple(name for name in COUNTERS if name != "cost")
# The script's names are shorter, because there is a field of each for every model and day.
_FIELDS: Final = {name.removesuffix("_tokens"): name for name in COUNTERS}

WEEK: Final = "week:"
"""The prefix of the periods that are weeks, of which only the cost is counted."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one model by one key on one day or in one month."""

    period: str
    model: str
    counts: Counts


async def of_days(redis: Redis, key: Key, *, last: date, days: int) -> list[Usage]:
    """Return the usage of the `days` days up to `last` (UTC), oldest first."""
    periods = [(last - timedelta(days=back)).isoformat() for back in reversed(range(days))]
    return await of_periods(redis, key, periods)


async def of_periods(redis: Redis, key: Key, periods: Iterable[str]) -> list[Usage]:
    """Return the usage of days (2026-11-30), months (2026-11) or weeks (`week_of`)."""
    names = list(periods)
    async with redis.pipeline(transaction=False) as pipeline:
        for period in names:
            pipeline.hgetall(usage_name(key, period))
        counters = await pipeline.execute()
    return [usage for period, fields in zip(names, counters, strict=True) for usage in of_fields(period, fields)]


def week_of(moment: datetime) -> str:
    """Return the period that is the week of a moment in UTC, such as `week:2026-11-30`: it begins on Monday."""
    return f"{WEEK}{moment.date() - timedelta(days=moment.weekday())}"


def summed(usages: Iterable[Usage], *, by: Literal["model", "day"]) -> dict[str, Counts]:
    """Return the sums of usage by model or by day."""
    sums: dict[str, Counts] = {}
    for usage in usages:
        name = usage.model if by == "model" else usage.period
        sums[name] = sums.get(name, Counts()) + usage.counts
    return sums


def usage_name(key: Key, period: str) -> str:
    """Return the Redis name of a key's counters of a day (2026-11-30) or a month (2026-11)."""
    return f"vilix:{{{key.shard}}}:usage:{key.id}:{period}"


def of_fields(period: str, fields: Mapping[str, str]) -> list[Usage]:
    """Return the usage of each model from the counters of a period."""
    by_model: dict[str, dict[str, int]] = {}
    for field, value in fields.items():
        name, _, model = field.partition(":")
        if name in _FIELDS:
            by_model.setdefault(model, {})[_FIELDS[name]] = int(value)
    return [Usage(period, model, Counts(**counts)) for model, counts in sorted(by_model.items())]
