"""Writes the events of a response to the store while it is generated, several at a time, and renews its lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from services.gateway.stored_responses.store import (
    Budgets,
    ResponseLostError,
    ResponseStore,
    StoreAwayError,
    StoreFullError,
)
from services.runtime.end_tasks import end_tasks

BATCH_SECONDS: Final = 0.1
BATCH_EVENTS: Final = 64
"""One write has all events of so many seconds, or so many events."""
END_ATTEMPTS: Final = 20
"""The most attempts to store the end of a response while the store is away."""
RETRY_SECONDS: Final = 0.25
_log: Final = logging.getLogger(__name__)


class EventLog:
    """The events of one response that this gateway generates."""

    def __init__(
        self, store: ResponseStore, response_id: str, holder: str, budgets: Budgets, *, length: int = 0
    ) -> None:
        """Write the events of a response that was created for `holder` with `length` events."""
        self.on_lost: Callable[[bool], None] | None = None
        """Called when the response was ended elsewhere; with True, it was deleted or has expired."""
        self.on_full: Callable[[], None] | None = None
        """Called when the response does not fit any more. It is no longer stored."""
        self.response_id: Final = response_id
        self._store: Final = store
        self._holder: Final = holder
        self._budgets: Final = budgets
        self._pending: list[bytes] = []
        self._is_due: Final = asyncio.Event()
        self._has_events: Final = asyncio.Event()
        self._is_writable = True
        self._length = length
        """The number of events that were written."""
        self._one_write: Final = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._task: Final = asyncio.create_task(self._keep_writing())

    @property
    def is_writable(self) -> bool:
        """True while this gateway stores the response."""
        return self._is_writable

    @property
    def is_running(self) -> bool:
        """True while the lease is renewed. The log must then be ended or stopped."""
        return not self._task.done()

    def add(self, event: bytes) -> None:
        """Store an event with the next batch."""
        if self._is_writable:
            self._pending.append(event)
            self._has_events.set()
            if len(self._pending) >= BATCH_EVENTS:
                self._is_due.set()

    async def end(self, document: dict[str, Any], *, patience: float | None = None) -> None:
        """Store the remaining events, and the response as it has ended.

        After `patience` seconds, if they are given, storing goes on without the caller.
        """
        self._ending = asyncio.create_task(self._store_end(document))
        await asyncio.wait({self._ending}, timeout=patience)
        if self._ending.done():
            self._ending.result()

    async def _store_end(self, document: dict[str, Any]) -> None:
        await self.stop()
        for _ in range(END_ATTEMPTS):
            if not self._is_writable:
                return
            try:
                await self._write(document)
            except StoreAwayError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._is_writable = False
                return
        _log.warning("the end of a response was not stored", extra={"response_id": self.response_id})

    async def stop(self) -> None:
        """Stop writing batches."""
        await end_tasks(self._task)

    async def _keep_writing(self) -> None:
        renewal = self._store.lease_ms / 3000
        while self._is_writable:
            try:
                async with asyncio.timeout(renewal):
                    await self._has_events.wait()
                    async with asyncio.timeout(BATCH_SECONDS):
                        await self._is_due.wait()
            except TimeoutError:
                # A batch is due, or the lease is to be renewed.
                pass
            try:
                await asyncio.shield(self._write(None))
            except StoreAwayError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _write(self, document: dict[str, Any] | None) -> None:
        async with self._one_write:
            if not self._is_writable:
                return
            batch, self._pending = self._pending, []
            self._has_events.clear()
            self._is_due.clear()
            try:
                await self._store.append(
                    self.response_id, self._holder, self._budgets, batch, document, length=self._length
                )
                self._length += len(batch)
            except ResponseLostError as lost:
                self._is_writable = False
                if self.on_lost is not None:
                    self.on_lost(lost.is_gone)
            except StoreFullError:
                self._is_writable = False
                if self.on_full is not None:
                    self.on_full()
            except StoreAwayError:
                self._pending = [*batch, *self._pending]
                self._has_events.set()
                raise
