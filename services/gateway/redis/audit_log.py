"""The audit log: every change of keys, aliases, tiers and prices, in append-only streams in Redis.

The script that makes a change also writes its entry, so that neither exists without the other. A script can write only
one slot of a cluster, so each shard of keys has its own stream, and each other kind of change too:

    vilix:{sNN}:audit        the changes of keys of the shard
    {vilix:aliases}:audit    the changes of aliases
    {vilix:tiers}:audit      the changes of the file of tiers
    {vilix:prices}:audit     the changes of the file of prices

An entry names the caller who asked for the change and the place from which the request came. It contains neither
secrets nor their digests. A stream keeps its entries for RETENTION_SECONDS, and the latest MOST_ENTRIES at most.
"""

from __future__ import annotations

import getpass
import heapq
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from services.gateway.redis.script import Script
from services.gateway.redis.shards import SHARDS, shard_name

RETENTION_SECONDS: Final = 400 * 86_400
MOST_ENTRIES: Final = 5_000
"""The most entries of a stream, about 3 MB."""
_PAGE: Final = 500
_TIERS: Final = "vilix:tiers"
"""The tiers that the gateways read last, as JSON."""
_PRICES: Final = "vilix:prices"
"""The prices that the gateways read last, as JSON."""
_OTHERS: Final = ("{vilix:aliases}:audit", "{vilix:tiers}:audit", "{vilix:prices}:audit")

BEFORE: Final = "BEFORE"
APPEND: Final = f"""
-- Returns an entry with the value that was there before, as JSON.
local function with_before(entry, before)
  return (string.gsub(entry, '"{BEFORE}"', function() return before end, 1))
end

-- Appends an entry to the stream, and removes those that are too old or too many.
local function audit(stream, entry)
  local now = tonumber(redis.call('TIME')[1])
  local oldest = string.format('%d', math.max(0, now - {RETENTION_SECONDS}) * 1000)
  redis.call('XADD', stream, 'MINID', '~', oldest, '*', 'entry', entry)
  redis.call('XTRIM', stream, 'MAXLEN', '~', {MOST_ENTRIES})
end
"""
"""The Lua functions with which scripts write entries."""

_NOTE_FILE: Final = Script(
    APPEND
    + """
local before = redis.call('GET', KEYS[1])
if before ~= ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
  audit('{' .. KEYS[1] .. '}:audit', with_before(ARGV[2], before or 'null'))
end
"""
)


class AuditEntry(BaseModel):
    """A change."""

    time: float = Field(description="When it was made, in seconds since 1970, by the clock of Redis.")
    actor: str = Field(description="The caller: `admin API`, with the name that it gave, or the user of a machine.")
    address: str = Field(description="The network address of the caller of the admin API, or the name of a machine.")
    action: str = Field(description="What was done, such as `key.changed`.")
    subject: str = Field(description="The id of the key, the alias, `tiers` or `prices`.")
    name: str = Field(description="The name of the key; otherwise empty.")
    before: Any = Field(description="The changed fields as they were; null if there was nothing.")
    after: Any = Field(description="The changed fields as they are now; null if there is nothing any more.")


@dataclass(frozen=True, slots=True)
class Origin:
    """The caller who asks for changes."""

    actor: str
    address: str


_ORIGIN: Final[ContextVar[Origin | None]] = ContextVar("audit_origin", default=None)


@contextmanager
def changes_from(origin: Origin) -> Iterator[None]:
    """Write `origin` into the entries of changes that are made in this context."""
    token = _ORIGIN.set(origin)
    try:
        yield
    finally:
        _ORIGIN.reset(token)


def new_entry(action: str, subject: str, *, name: str = "", before: Any = None, after: Any = None) -> str:
    """Return an entry for a script's function `audit`. The caller is that of `changes_from`, or this process.

    `before` may be BEFORE: the script knows it, and replaces it.
    """
    origin = _ORIGIN.get() or _own_origin()
    fields = {"actor": origin.actor, "address": origin.address, "action": action, "subject": subject, "name": name}
    # Scripts replace the first "BEFORE".
    return orjson.dumps({"before": before, **fields, "after": after}).decode()


async def note_tiers(redis: Redis, tiers: Mapping[str, Any]) -> None:
    """Write an entry if the tiers are not the ones that a gateway read before. Raises RedisError."""
    await _note_file(redis, _TIERS, "tiers", tiers)


async def note_prices(redis: Redis, prices: Mapping[str, Any]) -> None:
    """Write an entry if the prices are not the ones that a gateway read before. Raises RedisError."""
    await _note_file(redis, _PRICES, "prices", prices)


async def last_prices(redis: Redis) -> Mapping[str, Any] | None:
    """Return the prices that the gateways read last, as `note_prices` got them; None without any. Raises RedisError."""
    text = await redis.get(_PRICES)
    return None if text is None else cast(Mapping[str, Any], orjson.loads(text))


async def _note_file(redis: Redis, name: str, subject: str, content: Mapping[str, Any]) -> None:
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()
    entry = new_entry(f"{subject}.changed", subject, before=BEFORE, after=content)
    await _NOTE_FILE.run(redis, name, text, entry)


async def read(redis: Redis, *, since: float, until: float, subject: str | None, limit: int) -> list[AuditEntry]:
    """Return the latest entries of a time, latest first.

    Args:
        redis: The database.
        since: The beginning, in seconds since 1970.
        until: The end, in seconds since 1970.
        subject: The id or the name of the key, the alias, `tiers` or `prices` whose entries are returned; None for all.
        limit: The most entries that are returned.

    Raises:
        RedisError: Redis cannot be read.
    """
    found: list[AuditEntry] = []
    for stream in (*(f"vilix:{{{shard_name(number)}}}:audit" for number in range(SHARDS)), *_OTHERS):
        of_stream = 0
        async for entry in _entries(redis, stream, since, until):
            if subject is None or subject in (entry.subject, entry.name):
                found.append(entry)
                of_stream += 1
                if of_stream == limit:
                    break
        found = heapq.nlargest(limit, found, key=lambda entry: entry.time)
    return found


async def _entries(redis: Redis, stream: str, since: float, until: float) -> AsyncIterator[AuditEntry]:
    """Yield the entries of a stream, latest first."""
    # Only the beginning and the end of a range that has more than a page need sequence numbers.
    last, first = str(max(0, round(until * 1000))), str(max(0, round(since * 1000)))
    while True:
        page = cast(list[Any], await redis.xrevrange(stream, last, first, count=_PAGE))
        for entry_id, fields in page:
            milliseconds = int(str(entry_id).partition("-")[0])
            yield AuditEntry(time=milliseconds / 1000, **orjson.loads(fields["entry"]))
        if len(page) < _PAGE:
            return
        last = f"({page[-1][0]}"


def _own_origin() -> Origin:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container may run as a user without a name.
        user = str(os.getuid())
    return Origin(f"user {user}", socket.gethostname())
