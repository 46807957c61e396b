"""The usage of keys: counters per key, model, and day or month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
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

    def __add__(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(*map(sum, zip(self.numbers().values(), other.numbers().values(), strict=True)))

    def numbers(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)


COUNTERS: Final = tuple(Counts.__dataclass_fields__)
# The script's names are shorter, because there is a field of each for every model and day.
_FIELDS: Final = {name.removesuffix("_tokens"): name for name in COUNTERS}


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
    """Return the usage of days (2026-11-30) or months (2026-11)."""
    names = list(periods)
    async with redis.pipeline(transaction=False) as pipeline:
        for period in names:
            pipeline.hgetall(usage_name(key, period))
        counters = await pipeline.execute()
    return [usage for period, fields in zip(names, counters, strict=True) for usage in of_fields(period, fields)]


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
