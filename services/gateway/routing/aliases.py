"""Further ids of models, which an operator chooses: by a setting, and by the admin API, which keeps them in Redis.

The pipeline replaces an alias by its model before anything else reads it, so that keys, limits, usage and metrics know
the model alone (docs/adr/0023). An alias of the admin API replaces one of the setting, and every alias hides a model of
the same id. The target of an alias is always a model, never an alias.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis

from services.gateway.receipt_notes import ReceiptNotes
from services.gateway.redis import audit_log
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.redis.script import Script
from services.runtime.end_tasks import end_tasks
from services.runtime.messages.message import Message

NAME: Final = "vilix:aliases"
"""A hash of models by alias."""
MOST_ALIASES: Final = 1000
MOST_CHARACTERS: Final = 256
REFRESH_SECONDS: Final = 1.0
_READ: Final = Script("return redis.call('HGETALL', KEYS[1])")
"""A script, because the pipeline for scripts costs half of what a command of redis-py does."""
_CHANGE: Final = Script(
    audit_log.APPEND
    + """
-- Sets the alias ARGV[1] to the model ARGV[2], or deletes it if that is empty. Returns whether anything changed.
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if before == ARGV[2] then
  return 0
elseif ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
audit('{' .. KEYS[1] .. '}:audit', with_before(ARGV[3], before == '' and 'null' or cjson.encode(before)))
return 1
"""
)
PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


class Aliases:
    """The aliases of this gateway. Between `open` and `close` it reads those of the admin API once per second."""

    def __init__(self, link: RedisLink, configured: Mapping[str, str]) -> None:
        """Begin with those of the setting."""
        self.by_name: Mapping[str, str] = configured
        """The model of each alias. Replaced as a whole, so that any thread may read it."""
        self.configured: Final = configured
        """Those of the setting."""
        self._link: Final = link
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to read those of the admin API."""
        self._task = asyncio.create_task(self._keep_reading())

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end_tasks(self._task)

    def resolve(self, body: Any, notes: ReceiptNotes) -> Any:
        """Replace an alias in the field `model` of a parsed request body, and return the body. Note it in `notes`."""
        if isinstance(body, dict) and isinstance(model := body.get("model"), str) and model in self.by_name:
            body["model"], notes.alias = self.by_name[model], model
        return body

    async def _keep_reading(self) -> None:
        while True:
            # Without Redis, the last ones stay.
            with suppress(RedisAwayError):
                self.by_name = {**self.configured, **await self._link.run(read)}
            await asyncio.sleep(REFRESH_SECONDS)


def parse(text: str) -> dict[str, str]:
    """Return the aliases of a setting: comma-separated ALIAS=MODEL. Raises ValueError."""
    aliases: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        alias, equals, model = (part.strip() for part in entry.partition("="))
        if not equals or not model or not PATTERN.fullmatch(alias):
            raise ValueError(f"VILIX_ALIASES: {entry[:200]!r} must be ALIAS=MODEL")
        aliases[alias] = model
    if chained := sorted(alias for alias, model in aliases.items() if model in aliases):
        raise ValueError(f"VILIX_ALIASES: {chained[0]!r} must be an alias of a model, not of another alias")
    return aliases


async def read(redis: Redis) -> dict[str, str]:
    """Return the aliases of the admin API."""
    names_and_models = iter(await _READ.run(redis, NAME))
    return dict(sorted(zip(names_and_models, names_and_models, strict=True)))


async def save(redis: Redis, alias: str, model: str, *, configured: Mapping[str, str]) -> None:
    """Create or replace an alias. Raises ValueError for one that is not valid, beside those of the setting."""
    if not PATTERN.fullmatch(alias):
        raise ValueError(Message("alias_not_valid", field="alias", value=repr(alias[:80])))
    known = await read(redis)
    if model in known or model in configured or model == alias:
        raise ValueError(Message("alias_of_alias", field="model", value=repr(model[:80])))
    if len(known) >= MOST_ALIASES and alias not in known:
        raise ValueError(Message("too_many_aliases", limit=MOST_ALIASES))
    await _CHANGE.run(redis, NAME, alias, model, _entry("alias.set", alias, model))


async def delete(redis: Redis, alias: str) -> bool:
    """Delete an alias. Return whether there was one that the admin API had created."""
    return bool(await _CHANGE.run(redis, NAME, alias, "", _entry("alias.deleted", alias, None)))


def _entry(action: str, alias: str, model: str | None) -> str:
    return audit_log.new_entry(action, alias, before=audit_log.BEFORE, after=model)
