"""The store of responses: a Redis of its own, so that what clients keep cannot fill that of keys and limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.gateway import metrics
from services.gateway.redis.connection import connect, disconnect
from services.gateway.redis.script import Script
from services.gateway.stored_responses import scripts
from services.gateway.stored_responses.packing import TooLargeError, pack, raw_bytes, unpack_anywhere

PREFIX: Final = "vilix:{responses}"
TIMEOUT_SECONDS: Final = 5.0
"""A conversation may have megabytes."""
AWAY_SECONDS: Final = 1.0
"""Seconds after a failure during which the store is not asked again."""
MOST_EVENTS: Final = 1_000
"""The most events of one reply."""
KEY_READS: Final = 4
"""The most documents of one key that are read at the same time."""
_log: Final = logging.getLogger(__name__)


class StoreAwayError(Exception):
    """The store did not reply, or replied with an error."""


class StoreFullError(Exception):
    """A response does not fit the bytes of its key, or those of all keys."""


class ResponseLostError(Exception):
    """A response is no longer this gateway's to write: it was deleted, has expired, or has ended."""

    def __init__(self, *, is_gone: bool) -> None:
        """Report whether it no longer exists."""
        super().__init__("gone" if is_gone else "ended")
        self.is_gone: Final = is_gone


@dataclass(frozen=True, slots=True)
class Budgets:
    """The limits of what is stored, in time and bytes. Bytes count before compression, which bounds reads too."""

    seconds: int
    """Seconds for which a response is kept."""
    key_bytes: int
    """The most bytes of one key."""
    total_bytes: int
    """The most bytes of all keys."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is stored at the moment."""

    id: str
    status: str
    document: dict[str, Any]
    """The response object: without output until it has ended. Empty if it was not asked for."""
    items: list[dict[str, Any]]
    """The items of its whole input, if they were asked for."""
    is_lost: bool
    """Whether the gateway that generates it has died."""
    length: int
    """The number of its events so far."""
    events: list[str]
    """Events as they are sent, from the one that was asked for."""

    @property
    def has_ended(self) -> bool:
        """Whether its last event is stored."""
        return self.status in ("completed", "incomplete", "failed", "cancelled")


class ResponseStore:
    """Stores responses. All methods raise StoreAwayError."""

    def __init__(self, url: str, *, lease_ms: int) -> None:
        """Use the Redis at `url`. A response whose gateway renews no lease for `lease_ms` has lost it.

        Raises ValueError for a URL that is not valid.
        """
        self.lease_ms: Final = lease_ms
        self._redis: Final[Redis] = connect(url, timeout=TIMEOUT_SECONDS)
        self._away_until = 0.0
        self._reads: Final[WeakValueDictionary[str, asyncio.Semaphore]] = WeakValueDictionary()
        """Admits the reads of each key that has some."""

    async def close(self) -> None:
        """Close the connections."""
        await disconnect(self._redis)

    async def create(
        self,
        response_id: str,
        owner: str,
        holder: str,
        budgets: Budgets,
        *,
        document: dict[str, Any],
        items: Sequence[Any],
        events: Sequence[bytes] = (),
    ) -> None:
        """Store a response that `holder`, a generation, will write. Raises StoreFullError."""
        packed = await _packed(document, list(items), most=budgets.key_bytes)
        arguments = [
            response_id,
            owner,
            str(budgets.seconds),
            str(budgets.key_bytes),
            str(budgets.total_bytes),
            str(self.lease_ms),
            holder,
            document["status"],
            *packed,
            *(event.decode() for event in events),
        ]
        if await self._run(scripts.CREATE, *arguments) == "full":
            raise StoreFullError

    async def append(
        self,
        response_id: str,
        holder: str,
        budgets: Budgets,
        events: Sequence[bytes],
        document: dict[str, Any] | None = None,
        *,
        length: int,
    ) -> None:
        """Add events to the `length` that were written, and with `document` the present status; renew the lease.

        Raises ResponseLostError and StoreFullError.
        """
        packed = "" if document is None else (await _packed(document, most=budgets.key_bytes))[0]
        arguments = [
            response_id,
            holder,
            str(self.lease_ms),
            str(budgets.key_bytes),
            str(budgets.total_bytes),
            "" if document is None else document["status"],
            packed,
            str(length),
            *(event.decode() for event in events),
        ]
        match await self._run(scripts.APPEND, *arguments):
            case "full":
                raise StoreFullError
            case "gone":
                raise ResponseLostError(is_gone=True)
            case "ended":
                raise ResponseLostError(is_gone=False)

    async def end(
        self,
        response_id: str,
        budgets: Budgets,
        *,
        length: int,
        only_lost: bool,
        document: dict[str, Any],
        events: Sequence[bytes],
        shorter: tuple[dict[str, Any], bytes],
    ) -> bool:
        """End a response that another gateway writes, after exactly `length` events. Return whether it was.

        With `only_lost`, it is ended only if its gateway has died. The document and the event in `shorter` are stored
        if the others do not fit the budgets.
        """
        short_document, short_event = shorter
        short = (await _packed(short_document, most=2**62))[0]
        try:
            full, frames = (await _packed(document, most=budgets.key_bytes))[0], events
        except StoreFullError:
            full, frames = short, [short_event]
        arguments = [
            response_id,
            str(length),
            "1" if only_lost else "0",
            str(budgets.key_bytes),
            str(budgets.total_bytes),
            document["status"],
            full,
            short,
            short_event.decode(),
            *(event.decode() for event in frames),
        ]
        return bool(await self._run(scripts.END, *arguments) == "stored")

    async def read(
        self,
        response_id: str,
        owner: str,
        *,
        first: int = 0,
        most: int = 0,
        with_document: bool = True,
        with_items: bool = False,
        charge: Callable[[int], Awaitable[None]] | None = None,
    ) -> StoredResponse | None:
        """Return a response of the key `owner`; None without one.

        Args:
            response_id: The id of the response.
            owner: The id of the key.
            first: The number of the first event that is returned.
            most: The most events that are returned.
            with_document: Whether the response object is returned.
            with_items: Whether the items of the input are returned.
            charge: Called with the bytes of JSON before they are unpacked. What it raises is raised.
        """
        parts = ("1" if with_document else "0", "1" if with_items else "0")
        async with self._reading(owner) if with_document or with_items else contextlib.nullcontext():
            found = await self._run(scripts.READ, response_id, owner, str(first), str(most), *parts)
            if not found:
                return None
            status, document, items, lost, length, events = found
            if charge is not None:
                await charge(raw_bytes(document) + raw_bytes(items))
            return StoredResponse(
                response_id,
                status,
                {**await unpack_anywhere(document), "status": status} if document else {},
                await unpack_anywhere(items) if items else [],
                bool(lost),
                length,
                events,
            )

    def _reading(self, owner: str) -> asyncio.Semaphore:
        semaphore = self._reads.get(owner)
        if semaphore is None:
            semaphore = self._reads[owner] = asyncio.Semaphore(KEY_READS)
        return semaphore

    async def delete(self, response_id: str, owner: str) -> bool:
        """Delete a response of the key `owner`. Return whether there was one."""
        return bool(await self._run(scripts.DELETE, response_id, owner))

    async def purge(self, owner: str) -> int:
        """Delete all responses of a key, and return their number."""
        number = 0
        while deleted := int(await self._run(scripts.PURGE, owner)):
            number += deleted
        return number

    async def owners(self) -> list[str]:
        """Return the ids of the keys that have responses."""
        return list(await self._run(scripts.OWNERS))

    async def used_bytes(self) -> int:
        """Return the bytes of all responses."""
        return int(await self._run(scripts.USED))

    async def _run(self, script: Script, *arguments: str) -> Any:
        if time.monotonic() < self._away_until:
            raise StoreAwayError
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                result = await script.run(self._redis, PREFIX, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("the store of responses is away", extra={"error": f"{type(error).__name__}: {error}"[:200]})
            self._away_until = time.monotonic() + AWAY_SECONDS
            metrics.REDIS_UP.labels("responses").set(0)
            raise StoreAwayError from error
        metrics.REDIS_UP.labels("responses").set(1)
        return result


async def _packed(*values: Any, most: int) -> list[str]:
    """Pack values in a thread. Raises StoreFullError if one has more than `most` bytes."""
    try:
        return await asyncio.to_thread(lambda: [pack(value, most=most) for value in values])
    except TooLargeError:
        raise StoreFullError from None
