"""The receipts of requests in Redis, for a day.

A settlement writes the receipt of its request: see limits_script. What ended earlier, such as a request without a body,
has no settlement; its receipt is written here, after the response.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from services.gateway.record import RequestRecord, outcome_of
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.redis.script import Script
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Key, shard_of_key
from services.gateway.tenancy.receipt import receipt_of
from services.runtime.end_tasks import end_tasks

SECONDS: Final = 86_400
"""Seconds for which a receipt can be read."""
MOST_WAITING: Final = 1000
"""The most receipts that wait to be written; further ones are dropped."""
MOST_REJECTED: Final = 50
"""The most receipts of requests without a settlement that are kept for a key, so that they displace no others."""
_AT_ONCE: Final = 100
_PAGE: Final = 200
_KEEP: Final = Script(
    (Path(__file__).parent / "limits_script" / "receipts.lua").read_text()
    + """
-- KEYS[1]: the receipts of a key. ARGV[1]: the most that are kept. ARGV[2..]: request ids, each with its receipt.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for index = 2, #ARGV, 2 do
  keep_receipt(KEYS[1], now, ARGV[index], ARGV[index + 1], tonumber(ARGV[1]))
end
"""
)


class Receipts:
    """Writes receipts of requests that had no settlement, and reads all. `open` and `close` it."""

    def __init__(self, link: RedisLink, *, most: int) -> None:
        """Keep receipts, at most `most` of each key and MOST_REJECTED; none if it is 0."""
        self._link: Final = link
        self._most: Final = min(most, MOST_REJECTED)
        self._waiting: Final[deque[tuple[str, str, str]]] = deque()
        self._waiting_of: Final[Counter[str]] = Counter()
        self._has_work: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._keep_writing())

    async def close(self) -> None:
        """Write what waits, as far as Redis is available, and stop."""
        if self._task is not None:
            await end_tasks(self._task)
        await self._write()

    def end(self, record: RequestRecord) -> None:
        """Have the receipt of a request written whose response has ended, if its settlement does not write it."""
        notes = record.receipt
        if record.key_id is None or notes.is_settled or notes.is_handed_over or not self._most:
            return
        notes.is_settled = True
        if self._link.rejection is not None:
            # A full Redis needs its memory for admissions and usage.
            return
        # More would not be kept, and one key must not drop those of others.
        if len(self._waiting) < MOST_WAITING and self._waiting_of[record.key_id] < self._most:
            self._waiting_of[record.key_id] += 1
            receipt = receipt_of(record, outcome=record.outcome or outcome_of(record.status))
            self._waiting.append((record.key_id, record.request_id, receipt.decode()))
            self._has_work.set()

    async def _keep_writing(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            await self._write()

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._waiting_of.subtract(key_id for key_id, _, _ in batch)
            for key_id in dict.fromkeys(key_id for key_id, _, _ in batch):
                if not self._waiting_of[key_id]:
                    del self._waiting_of[key_id]
                arguments = [part for owner, *parts in batch if owner == key_id for part in parts]
                # Receipts of requests that used nothing may be lost while Redis is away.
                with suppress(RedisAwayError):
                    await self._link.run(
                        partial(_keep, name=rejected_name_of(key_id), most=self._most, arguments=arguments)
                    )


async def _keep(redis: Redis, *, name: str, most: int, arguments: list[str]) -> None:
    await _KEEP.run(redis, name, str(most), *arguments)


def name_of(key_id: str) -> str:
    """Return the name of the hash with the receipts of a key's requests that were settled."""
    return f"vilix:{{{shard_of_key(key_id)}}}:receipts:{key_id}"


def rejected_name_of(key_id: str) -> str:
    """Return the name of the hash with the receipts of a key's requests that had no settlement."""
    return f"{name_of(key_id)}:rejected"


class SharedIdError(Exception):
    """Several keys have made requests with one id."""

    def __init__(self, owners: Sequence[Key]) -> None:
        super().__init__(owners)
        self.owners: Final = owners


async def find(redis: Redis, key_ids: Iterable[str], request_id: str) -> dict[str, dict[str, Any]]:
    """Return the latest receipts of the requests with an id that keys have made in the last day, by the keys' ids.

    Clients choose the ids of requests, so several requests may have one. Raises RedisError.
    """
    ids, found = list(key_ids), dict[str, tuple[float, str]]()
    # A cluster has no single clock, and a few seconds do not matter here.
    oldest = time.time() - SECONDS
    for first in range(0, len(ids), _PAGE):
        page = [
            (key_id, name)
            for key_id in ids[first : first + _PAGE]
            for name in (name_of(key_id), rejected_name_of(key_id))
        ]
        async with redis.pipeline(transaction=False) as pipeline:
            for _, name in page:
                pipeline.hget(name, request_id)
                pipeline.zscore(f"{name}:at", request_id)
            replies = await pipeline.execute()
        for (key_id, _), receipt, at in zip(page, replies[::2], replies[1::2], strict=True):
            if receipt is not None and at is not None and float(at) > max(oldest, found.get(key_id, (0.0, ""))[0]):
                found[key_id] = (float(at), receipt)
    return {key_id: orjson.loads(receipt) for key_id, (_, receipt) in found.items()}


async def find_of_any(
    redis: Redis, request_id: str, *, name_or_id: str | None = None
) -> tuple[Key, dict[str, Any]] | None:
    """Return the latest receipt of a request of one key or, without a name, of any valid key, and the key.

    It asks for every key. Raises LookupError for a key that does not exist, SharedIdError, and RedisError.
    """
    found_keys = await keys.list_all(redis) if name_or_id is None else [await keys.get(redis, name_or_id)]
    by_id = {key.id: key for key in found_keys}
    found = await find(redis, by_id, request_id)
    if len(found) > 1:
        # Any of them may have chosen the id of another one's request.
        raise SharedIdError([by_id[key_id] for key_id in found])
    return next(((by_id[key_id], receipt) for key_id, receipt in found.items()), None)
