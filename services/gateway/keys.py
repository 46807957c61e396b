"""API keys in Redis: made, found, listed, changed, rotated and revoked.

Everything about a key is in one shard of 64, named by a hash tag, so that one script can decide about it on a cluster:

    vilix:{sNN}:secret:DIGEST   the id of the key with this secret; ends by itself when the key expires or was rotated
    vilix:{sNN}:secrets:ID      the digests of a key's secrets, each with the time at which it ends (0: with the key)
    vilix:{sNN}:key:ID          the key's record
    vilix:names                 the ids of all keys that were not revoked, by name
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from redis.asyncio import Redis
from redis.typing import EncodableT

from services.gateway.allowance import LIMITS, UNLIMITED, Allowance
from services.gateway.redis_connection import pinned
from services.gateway.redis_link import Script
from services.gateway.secret import digest, draw, is_well_formed, random_text, shard_of

NAMES: Final = "vilix:names"
GRACE_SECONDS: Final = 86_400
MAX_GRACE_SECONDS: Final = 400 * 86_400
LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970. Redis refuses times that are much later."""
ACKNOWLEDGE_MS: Final = 1_000
REVOKED_SECONDS: Final = 400 * 86_400
"""How long a revoked key's record is kept, for its usage."""
_FIND: Final = Script("""
local id = redis.call('GET', KEYS[1])
return id and redis.call('HGETALL', string.match(KEYS[1], '^.-}:') .. 'key:' .. id) or {}
""")
_MODEL_LIMITS: Final = TypeAdapter(dict[str, Allowance])


class NameTakenError(ValueError):
    """There is a key of this name."""


class Draft(BaseModel):
    """What an operator decides about a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128, description="A name to find the key by; unique and not secret.")
    owner: str = Field("", max_length=128, description="Whose key it is.")
    expires: int | None = Field(
        None, gt=0, le=LAST_SECOND, description="When it stops to be valid, in seconds since 1970."
    )
    tier: str | None = Field(None, description="The tier whose limits hold where the key has none of its own.")
    models: frozenset[str] | None = Field(None, description="The models that it may use; all when null.")
    limits: Allowance = Field(UNLIMITED, description="Limits on all of its requests.")
    model_limits: dict[str, Allowance] = Field({}, description="Further limits on single models, which hold as well.")


class Change(Draft):
    """A change of a key. Only what is given changes; null takes a limit away, and {} those of a model."""

    name: None = Field(None, description="A name never changes.")  # type: ignore[assignment]  # it is not given


class Key(Draft):
    """A key."""

    id: str
    created: int = Field(description="Seconds since 1970.")

    @property
    def shard(self) -> str:
        """The hash tag of everything about this key."""
        return shard_of(digest(self.id))

    @property
    def tenant(self) -> str:
        """Whose requests may share cached prompts: the owner's, or else this key's. Says nothing about who that is."""
        return digest(f"owner:{self.owner}" if self.owner else self.id)[:32]

    def may_use(self, model: str) -> bool:
        """Whether the model is one that it may use."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Replication:
    """How far a change had come when it was reported."""

    replicas: int
    """Replicas that Redis has."""
    acknowledged: int
    """Replicas that had the change, after waiting up to a second."""


@dataclass(frozen=True, slots=True)
class Proof:
    """As what a key was found: while its secret and its record are these, it would be found so again."""

    secret: str
    """The secret's digest."""
    record: str
    """The record's SHA-1, as limits.lua makes it."""


async def find(redis: Redis, secret: str) -> Key | None:
    """The key with this secret; None when there is none, or it is not valid any more. One round trip."""
    key, _ = await find_with_proof(redis, secret)
    return key


async def find_with_proof(redis: Redis, secret: str) -> tuple[Key | None, Proof | None]:
    """As `find`, and what to tell limits.lua to have it find the key again."""
    if not is_well_formed(secret):
        return None, None
    hashed = digest(secret)
    record = tuple(await _FIND.run(redis, _secret(hashed)))
    if not record:
        return None, None
    key, record_digest = _key_of(record)
    return key, Proof(hashed, record_digest)


async def create(redis: Redis, *, name: str, **draft: Any) -> tuple[Key, str]:
    """Make a key and return it with its secret, which cannot be had again. `draft` has the other fields of `Draft`.

    Raises ValueError when the name is taken, or a field is wrong.
    """
    key = Key(id=f"key_{random_text(12)}", created=int(time.time()), name=name, **draft)
    if key.expires is not None and key.expires <= key.created:
        raise ValueError(f"expires is {key.expires}, which is in the past; leave it out, or give a later time")
    if not await redis.hsetnx(NAMES, key.name, key.id):
        raise NameTakenError(f"there is a key named {key.name!r} already; revoke it first, or take another name")
    await redis.hset(_record(key.id), mapping=_fields(key))
    return key, await _add_secret(redis, key)


async def ensure(redis: Redis, *, name: str, saved: str) -> str:
    """The secret of the key `name`: `saved` if it is still valid, else of a new key that takes the place of the old."""
    found = await find(redis, saved)
    if found is not None and found.name == name:
        return saved
    if await redis.hexists(NAMES, name):
        await revoke(redis, name)
    _, secret = await create(redis, name=name)
    return secret


async def get(redis: Redis, name_or_id: str) -> Key:
    """A key, revoked ones by id too. Raises LookupError when there is none."""
    key_id = await redis.hget(NAMES, name_or_id) or name_or_id
    key = _key(await redis.hgetall(_record(str(key_id))))
    if key is None:
        raise LookupError(
            f"there is no key with the name or id {name_or_id!r}; `vilix keys list` shows those there are"
        )
    return key


async def list_all(redis: Redis) -> list[Key]:
    """Every key that was not revoked, oldest first."""
    async with redis.pipeline(transaction=False) as pipeline:
        for key_id in (await redis.hgetall(NAMES)).values():
            pipeline.hgetall(_record(str(key_id)))
        records = await pipeline.execute()
    return sorted((key for record in records if (key := _key(record))), key=lambda key: (key.created, key.name))


async def change(redis: Redis, name_or_id: str, changes: Change) -> Key:
    """Change what is set in `changes`; every gateway uses it from its next request. Raises LookupError, ValueError."""
    key = await get(redis, name_or_id)
    given = {name: getattr(changes, name) for name in changes.model_fields_set - {"name", "limits", "model_limits"}}
    limits = {**dict(key.limits), **{name: getattr(changes.limits, name) for name in changes.limits.model_fields_set}}
    models = {**key.model_limits, **changes.model_limits}
    given["limits"] = Allowance(**limits)
    given["model_limits"] = {model: limit for model, limit in models.items() if limit != UNLIMITED}
    changed = key.model_copy(update=given)
    before = _fields(key)
    # Only what differs is written: another field may be changed by somebody else at the same time.
    if different := {name: text for name, text in _fields(changed).items() if text != before[name]}:
        await redis.hset(_record(key.id), mapping=different)
    if changed.expires != key.expires:
        for hashed, ends in (await redis.hgetall(_secrets(key.id))).items():
            await _end(redis, changed, str(hashed), int(ends))
    return changed


async def rotate(redis: Redis, name_or_id: str, *, grace_seconds: int = GRACE_SECONDS) -> tuple[Key, str]:
    """A new secret for a key; the older ones stay valid for `grace_seconds`. Raises LookupError."""
    key = await get(redis, name_or_id)
    older = await redis.hgetall(_secrets(key.id))
    secret = await _add_secret(redis, key)
    ends = max(1, int(time.time()) + grace_seconds)
    for hashed, other in older.items():
        await _end(redis, key, str(hashed), min(int(other) or ends, ends))
    return key, secret


async def revoke(redis: Redis, name_or_id: str) -> tuple[Key, Replication]:
    """Revoke a key: it is refused from now on, by every gateway. Raises LookupError when there is none."""
    key = await get(redis, name_or_id)
    # On one connection, because a replica acknowledges what this connection wrote.
    async with pinned(redis, _record(key.id)) as server:
        for hashed in await server.hkeys(_secrets(key.id)):
            await server.delete(_secret(str(hashed)))
        await server.delete(_secrets(key.id))
        await server.expire(_record(key.id), REVOKED_SECONDS)
        replicas = int((await server.info("replication"))["connected_slaves"])
        acknowledged = int(await server.wait(1, ACKNOWLEDGE_MS)) if replicas else 0
    if await redis.hget(NAMES, key.name) == key.id:
        await redis.hdel(NAMES, key.name)
    return key, Replication(replicas, acknowledged)


async def _add_secret(redis: Redis, key: Key) -> str:
    secret = draw(key.shard)
    hashed = digest(secret)
    await redis.set(_secret(hashed), key.id)
    await _end(redis, key, hashed, 0)
    return secret


async def _end(redis: Redis, key: Key, hashed: str, ends: int) -> None:
    """Let a secret end at `ends` (0: never), or with its key."""
    await redis.hset(_secrets(key.id), hashed, str(ends))
    soonest = min((end for end in (ends, key.expires) if end), default=None)
    if soonest is None:
        await redis.persist(_secret(hashed))
    else:
        await redis.expireat(_secret(hashed), soonest)


def _fields(key: Key) -> dict[EncodableT, EncodableT]:
    """The record: every field is text, and empty where there is nothing."""
    fields: dict[EncodableT, EncodableT] = {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "created": str(key.created),
        "expires": str(key.expires or ""),
        "tier": key.tier or "",
        "models": "" if key.models is None else orjson.dumps(sorted(key.models)).decode(),
        "model_limits": _MODEL_LIMITS.dump_json(key.model_limits, exclude_none=True).decode()
        if key.model_limits
        else "",
    }
    return fields | {name: str(getattr(key.limits, name) or "") for name in LIMITS}


@lru_cache(maxsize=4096)
def _key_of(record: tuple[str, ...]) -> tuple[Key | None, str]:
    """The key and the digest of names and values in turns. A key's record rarely changes between its requests."""
    record_digest = hashlib.sha1("\0".join(record).encode(), usedforsecurity=False).hexdigest()
    return _key(dict(zip(record[::2], record[1::2], strict=True))), record_digest


def _key(record: Mapping[Any, Any]) -> Key | None:
    if not record:
        return None
    limits = {name: int(record[name]) if record[name] else None for name in LIMITS}
    return Key(
        id=record["id"],
        name=record["name"],
        owner=record["owner"],
        created=int(record["created"]),
        expires=int(record["expires"]) if record["expires"] else None,
        tier=record["tier"] or None,
        models=frozenset(orjson.loads(record["models"])) if record["models"] else None,
        limits=Allowance(**limits),
        model_limits=_MODEL_LIMITS.validate_json(record["model_limits"]) if record["model_limits"] else {},
    )


def _secret(hashed: str) -> str:
    return f"vilix:{{{shard_of(hashed)}}}:secret:{hashed}"


def _secrets(key_id: str) -> str:
    return f"vilix:{{{shard_of(digest(key_id))}}}:secrets:{key_id}"


def _record(key_id: str) -> str:
    return f"vilix:{{{shard_of(digest(key_id))}}}:key:{key_id}"
