"""API keys in Redis: made, found, listed and revoked. Only their SHA-256 is stored.

A key is `vlx_`, 30 base62 characters and 6 of their CRC-32. Everything about a key id lives in one shard of 64, named by
a hash tag, so that one script can read and change it on a cluster. A secret is drawn until its own hash falls into the
shard of its id, so that the shard is known from the secret alone, also when one id has two secrets.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

PREFIX: Final = "vlx_"
SHARDS: Final = 64
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 30
_CHECKSUM_LENGTH: Final = 6
INDEX: Final = "vilix:keys"
"""A hash of key ids to SHA-256 hex, of every key that was not revoked."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key."""

    id: str
    name: str
    created: int
    """Seconds since 1970."""
    rpm: int | None
    """Requests per minute; None for no limit."""

    @property
    def shard(self) -> str:
        """The hash tag of everything about this key."""
        return _shard(_sha256(self.id))


def is_well_formed(api_key: str) -> bool:
    """Whether the checksum is right: a key that was mistyped or cut is refused without a look into Redis."""
    body = api_key[len(PREFIX) :]
    if not api_key.startswith(PREFIX) or len(body) != _RANDOM_LENGTH + _CHECKSUM_LENGTH:
        return False
    return body[_RANDOM_LENGTH:] == _checksum(body[:_RANDOM_LENGTH])


async def create(redis: Redis, *, name: str, rpm: int | None = None) -> tuple[Key, str]:
    """Make a key and return it with its secret, which cannot be had again.

    Raises ValueError when the name is taken.
    """
    if any(key.name == name for key in await list_all(redis)):
        raise ValueError(f"there is a key named {name!r} already; revoke it first, or take another name")
    key = Key(id=f"key_{_random(12)}", name=name, created=int(time.time()), rpm=rpm)
    api_key = _draw(key.shard)
    digest = _sha256(api_key)
    await redis.hset(_record(digest), mapping={"id": key.id, "name": name, "created": key.created, "rpm": rpm or 0})
    await redis.hset(INDEX, key.id, digest)
    return key, api_key


async def ensure(redis: Redis, *, name: str, saved: str) -> str:
    """The secret of the key `name`: `saved` if it is still valid, else of a new key that takes the place of the old."""
    found = await find(redis, saved)
    if found is not None and found.name == name:
        return saved
    if any(key.name == name for key in await list_all(redis)):
        await revoke(redis, name)
    _, api_key = await create(redis, name=name)
    return api_key


async def find(redis: Redis, api_key: str) -> Key | None:
    """The key with this secret; None when there is none, or it was revoked."""
    if not is_well_formed(api_key):
        return None
    return _key(await redis.hgetall(_record(_sha256(api_key))))


async def list_all(redis: Redis) -> list[Key]:
    """Every key that was not revoked, oldest first."""
    digests = await redis.hgetall(INDEX)
    # On a cluster the records are on many nodes, so each is asked for by itself.
    records = [await redis.hgetall(_record(str(digest))) for digest in digests.values()]
    return sorted((key for record in records if (key := _key(record))), key=lambda key: key.created)


async def revoke(redis: Redis, name_or_id: str) -> Key:
    """Revoke a key. It is refused from now on. Raises LookupError when there is none."""
    for key in await list_all(redis):
        if name_or_id in (key.id, key.name):
            digest = await redis.hget(INDEX, key.id)
            await redis.delete(_record(str(digest)))
            await redis.hdel(INDEX, key.id)
            return key
    raise LookupError(f"there is no key with the name or id {name_or_id!r}; `vilix keys list` shows those there are")


def _key(record: Mapping[Any, Any]) -> Key | None:
    if not record:
        return None
    return Key(record["id"], record["name"], int(record["created"]), int(record["rpm"]) or None)


def _record(digest: str) -> str:
    return f"vilix:{{{_shard(digest)}}}:key:{digest}"


def _shard(digest: str) -> str:
    return f"s{int(digest[:2], 16) % SHARDS:02}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _draw(shard: str) -> str:
    while True:
        body = _random(_RANDOM_LENGTH)
        api_key = PREFIX + body + _checksum(body)
        if _shard(_sha256(api_key)) == shard:
            return api_key


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
