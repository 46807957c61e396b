"""The last use of keys, and what they have used in this month."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from redis.asyncio import Redis

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.usage import Counts, of_fields, usage_name

LAST: Final = "last"
"""The field of a month's counters with the time at which a request has last ended, in seconds since 1970.

Gateways of earlier versions do not write it.
"""
_MONTHS: Final = 14
"""The months for which counters are kept: 400 days."""


@dataclass(frozen=True, slots=True)
class KeyActivity:
    """The activity of one key."""

    last_used: int | None
    """When a request of the key has last ended, in seconds since 1970; None if that is unknown."""
    month: Counts
    """The usage of the present month (UTC)."""


async def of_keys(redis: Redis, keys: Sequence[Key], *, today: date) -> list[KeyActivity]:
    """Return the activity of each key. `today` is the date in UTC."""
    months = list(_months_before(today))
    async with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(usage_name(key, months[0]))
            for month in months[1:]:
                pipeline.hget(usage_name(key, month), LAST)
        replies = await pipeline.execute()
    activities = []
    for index in range(len(keys)):
        present, *earlier = replies[index * _MONTHS : (index + 1) * _MONTHS]
        counts = sum((usage.counts for usage in of_fields(months[0], present)), Counts())
        activities.append(KeyActivity(_newest([present.get(LAST), *earlier]), counts))
    return activities


def _newest(times: Iterable[str | None]) -> int | None:
    known = [int(time) for time in times if time]
    return max(known) if known else None


def _months_before(today: date) -> Iterator[str]:
    """Yield the month of `today` and those before it, as 2026-11."""
    year, month = today.year, today.month
    for _ in range(_MONTHS):
        yield f"{year:04}-{month:02}"
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
