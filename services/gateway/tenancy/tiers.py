"""The tiers of a file, which is read again when it changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from services.gateway.errors import unavailable
from services.gateway.redis.audit_log import note_tiers
from services.gateway.redis.link import RedisLink
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.limits import UNLIMITED, Tier, read_tiers
from services.gateway.tenancy.limits_script import Subject
from services.gateway.tenancy.prices import ModelPrice
from services.gateway.tenancy.watched_file import WatchedFile
from services.runtime.messages.message import Message

MOST_SUBJECTS: Final = 2048
"""The most pairs of a key and a model whose limits are kept between requests."""
_log: Final = logging.getLogger(__name__)


class Tiers:
    """The tiers of this gateway."""

    def __init__(self, path: Path | None) -> None:
        """Read the tiers of a YAML file; None for no tiers. Raises ValueError and OSError."""
        self._file: Final[WatchedFile[Mapping[str, Tier]]] = WatchedFile(path, "tiers", read_tiers, {})
        self._subjects: Final[dict[tuple[Fingerprint, str, ModelPrice | None], Subject]] = {}
        """Those that were asked for, as long as the file is the same."""
        self._subjects_of = self._file.content

    def open(self, link: RedisLink) -> None:
        """Begin to watch the file for changes, which the audit log behind `link` notes."""
        self._file.open(link, _note)

    async def close(self) -> None:
        """Stop watching the file."""
        await self._file.close()

    def subject(
        self, key: Key, model: str, fingerprint: Fingerprint | None = None, price: ModelPrice | None = None
    ) -> Subject:
        """Return the limits that apply to a key and a model. Raises ApiError (503) if the key's tier does not exist."""
        tiers = self._file.content
        if fingerprint is None:
            return _subject(tiers, key, model, None, price)
        if tiers is not self._subjects_of:
            self._subjects.clear()
            self._subjects_of = tiers
        # A key with the same fingerprint has the same limits.
        asked = (fingerprint, model, price)
        subject = self._subjects.get(asked)
        if subject is None:
            if len(self._subjects) >= MOST_SUBJECTS:
                self._subjects.clear()
            subject = self._subjects[asked] = _subject(tiers, key, model, fingerprint, price)
        return subject

    def store_seconds(self, key: Key) -> int | None:
        """Return for how long responses of a key are stored; None if its tier does not say it."""
        tier = self._file.content.get(key.tier or "")
        return None if tier is None else tier.store_seconds

    def limited_models(self, key: Key) -> list[str]:
        """Return the models that have limits of their own for a key."""
        tier = self._file.content.get(key.tier or "")
        return sorted({*key.model_limits, *(tier.models if tier else ())})


def _subject(
    tiers: Mapping[str, Tier], key: Key, model: str, fingerprint: Fingerprint | None, price: ModelPrice | None
) -> Subject:
    of_model = key.model_limits.get(model, UNLIMITED)
    if key.tier is None:
        return Subject(key, model, key.limits, of_model, fingerprint=fingerprint, price=price)
    tier = tiers.get(key.tier)
    if tier is None:
        _log.error("unknown tier", extra={"key_id": key.id, "tier": key.tier})
        raise unavailable(Message("tier_unknown", tier=repr(key.tier)), retry_after=5)
    of_model = of_model.or_else(tier.models.get(model, UNLIMITED))
    queue_length = tier.queue_length if tier.queue else 0
    return Subject(key, model, key.limits.or_else(tier), of_model, queue_length, tier.queue_seconds, fingerprint, price)


async def _note(redis: Redis, tiers: Mapping[str, Tier]) -> None:
    await note_tiers(redis, {name: tier.model_dump(mode="json", exclude_defaults=True) for name, tier in tiers.items()})
