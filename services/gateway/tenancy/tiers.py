"""The tiers of a file, which is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from services.gateway.errors import unavailable
from services.gateway.redis.audit_log import note_tiers
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.limits import UNLIMITED, Tier, read_tiers
from services.gateway.tenancy.limits_script import Subject
from services.runtime.end_tasks import end_tasks
from services.runtime.messages.message import Message

LOOK_SECONDS: Final = 0.5
_log: Final = logging.getLogger(__name__)


class Tiers:
    """The tiers of this gateway."""

    def __init__(self, path: Path | None) -> None:
        """Read the tiers of a YAML file; None for no tiers. Raises ValueError and OSError."""
        self._path: Final = path
        self._tiers: dict[str, Tier] = read_tiers(path) if path else {}
        self._seen = self._stamp()
        self._is_noted = False
        """True once the audit log knows these tiers."""
        self._task: asyncio.Task[None] | None = None

    def open(self, link: RedisLink) -> None:
        """Begin to watch the file for changes, which the audit log behind `link` notes."""
        if self._path is not None:
            self._task = asyncio.create_task(self._look(link))

    async def close(self) -> None:
        """Stop watching the file."""
        if self._task is not None:
            await end_tasks(self._task)

    def subject(self, key: Key, model: str, fingerprint: Fingerprint | None = None) -> Subject:
        """Return the limits that apply to a key and a model. Raises ApiError (503) if the key's tier does not exist."""
        if key.tier is None:
            limits = key.model_limits.get(model, UNLIMITED)
            return Subject(key, model, key.limits, limits, fingerprint=fingerprint)
        tier = self._tiers.get(key.tier)
        if tier is None:
            _log.error("unknown tier", extra={"key_id": key.id, "tier": key.tier})
            raise unavailable(Message("tier_unknown", tier=repr(key.tier)), retry_after=5)
        of_model = key.model_limits.get(model, UNLIMITED).or_else(tier.models.get(model, UNLIMITED))
        queue_length = tier.queue_length if tier.queue else 0
        return Subject(key, model, key.limits.or_else(tier), of_model, queue_length, tier.queue_seconds, fingerprint)

    def store_seconds(self, key: Key) -> int | None:
        """Return for how long responses of a key are stored; None if its tier does not say it."""
        tier = self._tiers.get(key.tier or "")
        return None if tier is None else tier.store_seconds

    def limited_models(self, key: Key) -> list[str]:
        """Return the models that have limits of their own for a key."""
        tier = self._tiers.get(key.tier or "")
        return sorted({*key.model_limits, *(tier.models if tier else ())})

    async def _look(self, link: RedisLink) -> None:
        while True:
            if not self._is_noted:
                await self._note(link)
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self._read_again)

    async def _note(self, link: RedisLink) -> None:
        tiers = {name: tier.model_dump(mode="json", exclude_defaults=True) for name, tier in self._tiers.items()}
        with suppress(RedisAwayError):  # They are noted when Redis is back.
            await link.run(partial(note_tiers, tiers=tiers))
            self._is_noted = True

    def _read_again(self) -> None:
        stamp = self._stamp()
        if self._path is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._tiers, self._is_noted = read_tiers(self._path), False
            _log.info("tiers read again", extra={"tiers": ", ".join(self._tiers)})
        except (ValueError, OSError) as error:
            _log.error("the tiers stay as they were: %s", error)  # the traceback would add nothing

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat() if self._path else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size) if status else None
