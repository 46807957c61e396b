"""API keys in Redis: made, found, listed, changed, rotated and revoked.

Everything about a key is in one shard of 64, named by a hash tag, so that one script can decide about it on a cluster:

    vilix:{sNN}:secret:DIGEST   the id of the key with this secret; ends by itself when the key expires or was rotated
    vilix:{sNN}:secrets:ID      the digests of a key's secrets, each with the time at which it ends (0: with the key)
    vilix:{sNN}:key:ID          the key's record; a revoked one has the field `revoked`, one that is being made `pending`
    vilix:names                 the ids of all keys that were not revoked, by name

The record is the authority. Each operation on it is one script, which refuses a key that was revoked. The names are in another
slot of a cluster, so no script can write both. Their order makes that safe, wherever a process dies:

1. `create` writes a pending record, which has no secret and ends by itself; then claims the name; then makes the key live,
   which fails when the pending record has ended. A name whose record is pending or live is taken.
2. `revoke` marks the record and deletes the secrets; then gives the name back, if it is still this key's.
3. A name whose record has ended or is revoked can be claimed by another key. Neither state is ever left again, so that no key
   that is on no list can authenticate.
"""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from redis.asyncio import Redis
from redis.typing import EncodableT

from services.gateway.redis.redis_connection import pinned
from services.gateway.redis.redis_link import Script
from services.gateway.tenancy.allowance import LIMITS, UNLIMITED, Allowance
from services.gateway.tenancy.secret import digest, draw, is_well_formed, random_text, shard_of

NAMES: Final = "vilix:names"
GRACE_SECONDS: Final = 86_400
MAX_GRACE_SECONDS: Final = 400 * 86_400
LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970. Redis refuses times that are much later."""
ACKNOWLEDGE_MS: Final = 1_000
REVOKED_SECONDS: Final = 400 * 86_400
"""How long a revoked key's record is kept, for its usage."""
PENDING_SECONDS: Final = 60
"""How long a key may take to be made."""
_ATTEMPTS: Final = 100
"""Of a change that others forestall."""
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_ID: Final = re.compile(r"key_[0-9A-Za-z]{12}")
_FIND: Final = Script("""
local id = redis.call('GET', KEYS[1])
if not id then
  return {}
end
local record = string.match(KEYS[1], '^.-}:') .. 'key:' .. id
-- The record of a key that was revoked ends some day, that of a valid one does not.
return redis.call('TTL', record) < 0 and redis.call('HGETALL', record) or {}
""")
_OF_RECORD: Final = """
local record = KEYS[1]
local shard, id = string.match(record, '^(.-}):key:(.+)$')
local secrets = shard .. ':secrets:' .. id
local now = tonumber(redis.call('TIME')[1])

local function secret_name(digest)
  return shard .. ':secret:' .. digest
end

local function state()
  if redis.call('EXISTS', record) == 0 then
    return 'absent'
  elseif redis.call('HEXISTS', record, 'pending') == 1 then
    return 'pending'
  elseif redis.call('HEXISTS', record, 'revoked') == 1 or redis.call('TTL', record) >= 0 then
    -- Earlier versions marked a revoked key by nothing but the end of its record.
    return 'revoked'
  end
  return 'live'
end

-- Let a secret end at `ends` (0: never), or with its key.
local function let_end(digest, ends)
  redis.call('HSET', secrets, digest, ends)
  local soonest = tonumber(redis.call('HGET', record, 'expires') or '') or 0
  if ends ~= 0 and (soonest == 0 or ends < soonest) then
    soonest = ends
  end
  if soonest == 0 then
    redis.call('PERSIST', secret_name(digest))
  else
    redis.call('EXPIREAT', secret_name(digest), soonest)
  end
end

local function add_secret(digest)
  redis.call('SET', secret_name(digest), id)
  let_end(digest, 0)
end
"""
_READ: Final = Script(
    _OF_RECORD
    + """
local found = state()
local revoked = ''
if found == 'revoked' then
  revoked = redis.call('HGET', record, 'revoked') or tostring(now + redis.call('TTL', record) - ARGV[1])
end
return {found, revoked, redis.call('HGETALL', record)}
"""
)
_RESERVE: Final = Script(
    _OF_RECORD
    + """
redis.call('HSET', record, 'pending', '1', unpack(ARGV, 2))
redis.call('EXPIRE', record, ARGV[1])
"""
)
_GIVE_UP: Final = Script(_OF_RECORD + "return state() == 'pending' and redis.call('DEL', record)")
_ACTIVATE: Final = Script(
    _OF_RECORD
    + """
if state() == 'pending' then
  redis.call('HDEL', record, 'pending')
  redis.call('PERSIST', record)
  add_secret(ARGV[1])
end
return state()
"""
)
_CHANGE: Final = Script(
    _OF_RECORD
    + """
local found = state()
if found ~= 'live' then
  return found
elseif redis.sha1hex(table.concat(redis.call('HGETALL', record), '\\0')) ~= ARGV[1] then
  return 'changed'
end
local expires = redis.call('HGET', record, 'expires')
redis.call('HSET', record, unpack(ARGV, 2))
if redis.call('HGET', record, 'expires') ~= expires then
  local all = redis.call('HGETALL', secrets)
  for index = 1, #all, 2 do
    let_end(all[index], tonumber(all[index + 1]))
  end
end
return found
"""
)
_ROTATE: Final = Script(
    _OF_RECORD
    + """
local found = state()
-- The answer to an earlier attempt may have been lost on its way.
if found ~= 'live' or redis.call('HEXISTS', secrets, ARGV[1]) == 1 then
  return found
end
local expires = tonumber(redis.call('HGET', record, 'expires') or '') or 0
if expires ~= 0 and expires <= now then
  return 'expired'
end
local all = redis.call('HGETALL', secrets)
for index = 1, #all, 2 do
  local digest, ends = all[index], tonumber(all[index + 1])
  if ends ~= 0 and ends <= now then
    redis.call('HDEL', secrets, digest)
    redis.call('DEL', secret_name(digest))
  else
    local soonest = math.max(1, now + tonumber(ARGV[2]))
    let_end(digest, ends == 0 and soonest or math.min(ends, soonest))
  end
end
add_secret(ARGV[1])
return found
"""
)
_REVOKE: Final = Script(
    _OF_RECORD
    + """
local found = state()
if found == 'live' or found == 'revoked' then
  for _, digest in ipairs(redis.call('HKEYS', secrets)) do
    redis.call('DEL', secret_name(digest))
  end
  redis.call('DEL', secrets)
  if found == 'live' then
    redis.call('HSET', record, 'revoked', now)
    redis.call('EXPIRE', record, ARGV[1])
  else
    -- Written again, so that replicas get it that did not have it.
    redis.call('EXPIRE', record, redis.call('TTL', record))
  end
end
return found
"""
)
_CLAIM: Final = Script("""
-- Give a name to a key, unless another one has it than that which is known to have ended. Returns whose it is.
local name, id, ended = ARGV[1], ARGV[2], ARGV[3]
local owner = redis.call('HGET', KEYS[1], name)
if owner and owner ~= id and owner ~= ended then
  return owner
end
redis.call('HSET', KEYS[1], name, id)
return id
""")
_RELEASE: Final = Script("""
return redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and redis.call('HDEL', KEYS[1], ARGV[1])
""")
_MODEL_LIMITS: Final = TypeAdapter(dict[str, Allowance])


class NameTakenError(ValueError):
    """There is a key of this name."""


class RevokedError(ValueError):
    """The key was revoked: nothing can be done with it any more."""


class ExpiredError(ValueError):
    """The key has expired: a new secret for it would not be valid."""


# Half of a surrogate pair, which cannot be stored, is refused only where a length is asked for.
Word = Annotated[str, Field(max_length=256)]


class Draft(BaseModel):
    """What an operator decides about a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128, description="A name to find the key by; unique and not secret.")
    owner: str = Field("", max_length=128, description="Whose key it is.")
    expires: int | None = Field(
        None, gt=0, le=LAST_SECOND, description="When it stops to be valid, in seconds since 1970."
    )
    tier: Word | None = Field(None, description="The tier whose limits hold where the key has none of its own.")
    models: frozenset[Word] | None = Field(None, description="The models that it may use; all when null.")
    limits: Allowance = Field(UNLIMITED, description="Limits on all of its requests.")
    model_limits: dict[Word, Allowance] = Field({}, description="Further limits on single models, which hold as well.")


class Change(Draft):
    """A change of a key. Only what is given changes; null takes a limit away, and {} those of a model."""

    name: None = Field(None, description="A name never changes.")  # type: ignore[assignment]  # it is not given


class Key(Draft):
    """A key."""

    id: str
    created: int = Field(description="Seconds since 1970.")
    revoked: int | None = Field(None, description="When it was revoked, in seconds since 1970.")

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
    """The record's SHA-1, as the limits script makes it."""


async def find(redis: Redis, secret: str) -> Key | None:
    """The key with this secret; None when there is none, or it is not valid any more. One round trip."""
    key, _ = await find_with_proof(redis, secret)
    return key


async def find_with_proof(redis: Redis, secret: str) -> tuple[Key | None, Proof | None]:
    """As `find`, and what to tell the limits script to have it find the key again."""
    if not is_well_formed(secret):
        return None, None
    hashed = digest(secret)
    record = tuple(await _FIND.run(redis, _secret(hashed)))
    key, record_digest = _key_of(record) if record else (None, "")
    if key is None or key.revoked is not None or "pending" in record[::2]:
        return None, None
    return key, Proof(hashed, record_digest)


async def create(redis: Redis, *, name: str, **draft: Any) -> tuple[Key, str]:
    """Make a key and return it with its secret, which cannot be had again. `draft` has the other fields of `Draft`.

    Raises ValueError when the name is taken, or a field is wrong, and TimeoutError when it took too long.
    """
    _check_name(name)
    key = Key(id=f"key_{random_text(12)}", created=int(time.time()), name=name, **draft)
    if key.expires is not None and key.expires <= key.created:
        raise ValueError(f"expires is {key.expires}, which is in the past; leave it out, or give a later time")
    await _RESERVE.run(redis, _record(key.id), str(PENDING_SECONDS), *_flat(_fields(key)))
    try:
        await _claim_name(redis, key)
    except NameTakenError:
        await _GIVE_UP.run(redis, _record(key.id))
        raise
    secret = draw(key.shard)
    if await _ACTIVATE.run(redis, _record(key.id), digest(secret)) != "live":
        await _RELEASE.run(redis, NAMES, key.name, key.id)
        raise TimeoutError(f"the key took longer than {PENDING_SECONDS} s to be made; try again")
    return key, secret


async def _claim_name(redis: Redis, key: Key) -> None:
    ended = ""
    while (owner := str(await _CLAIM.run(redis, NAMES, key.name, key.id, ended))) != key.id:
        state, *_ = await _READ.run(redis, _record(owner), str(REVOKED_SECONDS))
        if state in ("pending", "live"):
            raise NameTakenError(f"there is a key named {key.name!r} already; revoke it first, or take another name")
        ended = owner


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
    """A key by its id, also a revoked one, or else by its name. Raises LookupError when there is none."""
    key = await _load(redis, name_or_id) if _ID.fullmatch(name_or_id) else None
    if key is None and (key_id := await redis.hget(NAMES, name_or_id)):
        named = await _load(redis, str(key_id))
        key = named if named is not None and named.revoked is None else None
    if key is None:
        raise _unknown(name_or_id)
    return key


async def list_all(redis: Redis) -> list[Key]:
    """Every key that was not revoked, oldest first."""
    async with redis.pipeline(transaction=False) as pipeline:
        for key_id in (await redis.hgetall(NAMES)).values():
            pipeline.hgetall(_record(str(key_id)))
        records = await pipeline.execute()
    found = (_key(record) for record in records if "pending" not in record)
    listed = [key for key in found if key is not None and key.revoked is None]
    return sorted(listed, key=lambda key: (key.created, key.name))


async def change(redis: Redis, name_or_id: str, changes: Change) -> Key:
    """Change what is set in `changes`; every gateway uses it from its next request.

    Raises LookupError, ValueError, RevokedError, and TimeoutError when others change it all the time.
    """
    key_id = (await get(redis, name_or_id)).id
    for _ in range(_ATTEMPTS):
        state, _, record = await _READ.run(redis, _record(key_id), str(REVOKED_SECONDS))
        key, record_digest = _key_of(tuple(record))
        if key is None:
            raise _unknown(name_or_id)
        if state == "revoked":
            raise _revoked(key)
        changed = _changed(key, changes)
        before = _fields(key)
        different = {name: text for name, text in _fields(changed).items() if text != before[name]}
        if not different:
            return changed
        # It is decided by the record that was read: a change that somebody else made meanwhile is read first.
        match await _CHANGE.run(redis, _record(key_id), record_digest, *_flat(different)):
            case "live":
                return changed
            case "revoked":
                raise _revoked(key)
    raise TimeoutError(f"the key {name_or_id!r} is being changed by others all the time; try again")


def _changed(key: Key, changes: Change) -> Key:
    given = {name: getattr(changes, name) for name in changes.model_fields_set - {"name", "limits", "model_limits"}}
    limits = {**dict(key.limits), **{name: getattr(changes.limits, name) for name in changes.limits.model_fields_set}}
    models = {**key.model_limits, **changes.model_limits}
    given["limits"] = Allowance(**limits)
    given["model_limits"] = {model: limit for model, limit in models.items() if limit != UNLIMITED}
    return key.model_copy(update=given)


async def rotate(redis: Redis, name_or_id: str, *, grace_seconds: int = GRACE_SECONDS) -> tuple[Key, str]:
    """A new secret for a key; the older ones stay valid for `grace_seconds`.

    Raises LookupError, RevokedError, and ExpiredError.
    """
    key = await get(redis, name_or_id)
    secret = draw(key.shard)
    match await _ROTATE.run(redis, _record(key.id), digest(secret), str(grace_seconds)):
        case "live":
            return key, secret
        case "revoked":
            raise _revoked(key)
        case "expired":
            raise ExpiredError(
                f"the key {key.id} ({key.name}) has expired; change when it expires first, or make a new one"
            )
    raise _unknown(name_or_id)


async def revoke(redis: Redis, name_or_id: str) -> tuple[Key, Replication]:
    """Revoke a key: it is refused from now on, by every gateway. Raises LookupError when there is none."""
    key = await get(redis, name_or_id)
    # On one connection, because a replica acknowledges what this connection wrote.
    async with pinned(redis, _record(key.id)) as server:
        if await _REVOKE.run(server, _record(key.id), str(REVOKED_SECONDS)) not in ("live", "revoked"):
            raise _unknown(name_or_id)
        replicas = int((await server.info("replication"))["connected_slaves"])
        acknowledged = int(await server.wait(1, ACKNOWLEDGE_MS)) if replicas else 0
    await _RELEASE.run(redis, NAMES, key.name, key.id)
    return key, Replication(replicas, acknowledged)


def _check_name(name: str) -> None:
    """Raises ValueError for a name that could be taken for something else, or that no URL can have in its path."""
    if is_well_formed(name):
        raise ValueError("name is an API key itself, which is secret; take another name")
    if _ID.fullmatch(name):
        raise ValueError(f"name is {name!r}, which could be taken for the id of a key; take another name")
    if "/" in name or name in (".", ".."):
        raise ValueError(f"name is {name!r}; it must have no slash, and not be . or .., because it is part of URLs")
    if name != name.strip() or any(_is_invisible(character) for character in name):
        raise ValueError(f"name is {name!a}; it must have no space around it, and no control character in it")


def _is_invisible(character: str) -> bool:
    """Return whether a reader cannot see `character`, so that two names with and without it look the same.

    The joiner and the non-joiner are excepted: Persian is written with them.
    """
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS


def _unknown(name_or_id: str) -> LookupError:
    return LookupError(f"there is no key with the name or id {name_or_id!r}; `vilix keys list` shows those there are")


def _revoked(key: Key) -> RevokedError:
    return RevokedError(f"the key {key.id} ({key.name}) was revoked; make a new one")


async def _load(redis: Redis, key_id: str) -> Key | None:
    """A key that is live or revoked."""
    state, revoked, record = await _READ.run(redis, _record(key_id), str(REVOKED_SECONDS))
    if state not in ("live", "revoked"):
        return None
    key, _ = _key_of(tuple(record))
    return key.model_copy(update={"revoked": int(revoked)}) if key is not None and revoked else key


def _flat(fields: dict[EncodableT, EncodableT]) -> list[str]:
    return [str(part) for pair in fields.items() for part in pair]


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
        revoked=int(record["revoked"]) if record.get("revoked") else None,
    )


def _secret(hashed: str) -> str:
    return f"vilix:{{{shard_of(hashed)}}}:secret:{hashed}"


def _secrets(key_id: str) -> str:
    return f"vilix:{{{shard_of(digest(key_id))}}}:secrets:{key_id}"


def _record(key_id: str) -> str:
    return f"vilix:{{{shard_of(digest(key_id))}}}:key:{key_id}"
