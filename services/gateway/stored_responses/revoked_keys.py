"""Deletes the responses of keys that were revoked, and reports how much is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.gateway import metrics
from services.gateway.redis.link import RedisAwayError
from services.gateway.stored_responses.store import ResponseStore, StoreAwayError
from services.runtime.end_tasks import end_tasks

_log: Final = logging.getLogger(__name__)


class RevokedKeys:
    """Looks for revoked keys that have responses, again and again, whoever revoked them and wherever."""

    def __init__(
        self, store: ResponseStore, dead_keys: Callable[[Sequence[str]], Awaitable[list[str]]], *, seconds: float
    ) -> None:
        """Ask `dead_keys` which of some keys were revoked or no longer exist, every `seconds` seconds."""
        self._store: Final = store
        self._dead_keys: Final = dead_keys
        self._seconds: Final = seconds
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            await end_tasks(self._task)

    async def sweep(self) -> None:
        """Delete the responses of revoked keys, and report what is stored. Raises StoreAwayError and RedisAwayError."""
        for owner in await self._dead_keys(await self._store.owners()):
            number = await self._store.purge(owner)
            _log.info("deleted the responses of a revoked key", extra={"key_id": owner, "responses": number})
        metrics.STORED_RESPONSE_BYTES.set(await self._store.used_bytes())

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.sweep()
            except (StoreAwayError, RedisAwayError) as error:
                _log.warning("revoked keys were not looked for", extra={"error": repr(error)})
