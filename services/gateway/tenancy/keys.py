"""Creates, finds, lists, changes, rotates and revokes API keys in Redis.

All data of a key are in one of 64 shards, named by a hash tag, so that one script can decide about a key on a cluster:

    vilix:{sNN}:secret:DIGEST   the id of the key with this secret; expires when the key expires or was rotated
    vilix:{sNN}:secrets:ID      the digests of a key's secrets, each with its expiry (0: the key's own)
    vilix:{sNN}:key:ID          the key's record, with the field `revoked` or, while it is being created, `pending`;
                                key_records.py has its fields and the versions of its form
    vilix:names                 the ids of all keys that were not revoked, by name

The record is authoritative. Each operation on it is one script, which rejects a revoked key. The names are in another
slot of a cluster, so no script can write both. The order of the writes makes that safe, wherever a process dies:

1. `create` writes a pending record, which has no secret and expires; then claims the name; then makes the key live,
   which fails if the pending record has expired. A name whose record is pending or live is taken.
2. `revoke` marks the record and deletes the secrets; then releases the name, if it still belongs to this key.
3. A name whose record has expired or is revoked can be claimed by another key. A key never leaves these two states, so
   a key that is not listed can never authenticate.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.typing import EncodableT

from services.gateway.redis.audit_log import new_entry
from services.gateway.redis.connection import pinned
from services.gateway.tenancy import key_scripts as scripts
from services.gateway.tenancy.key import (
    Change,
    ExpiredError,
    Fingerprint,
    Key,
    Migration,
    NameTakenError,
    Replication,
    RevokedError,
)
from services.gateway.tenancy.key_records import (
    NAMES,
    fields_of,
    flat,
    key_of,
    key_with_digest,
    record_name,
    secret_name,
)
from services.gateway.tenancy.limits import UNLIMITED, Limits
from services.gateway.tenancy.secret import digest, draw, is_well_formed, random_text
from services.runtime.messages.message import Message

GRACE_SECONDS: Final = 86_400
MAX_GRACE_SECONDS: Final = 400 * 86_400
ACKNOWLEDGE_MS: Final = 1_000
REVOKED_SECONDS: Final = 400 * 86_400
"""The time for which a revoked key's record is kept, for its usage."""
PENDING_SECONDS: Final = 60
"""The timeout for creating a key."""
_ATTEMPTS: Final = 100
"""The most attempts at a change while others change the same key."""
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_ID: Final = re.compile(r"key_[0-9A-Za-z]{12}")


async def find(redis: Redis, secret: str) -> Key | None:
    """Return the key with this secret, or None if it is not valid. It takes one round trip."""
    key, _ = await find_with_fingerprint(redis, secret)
    return key


async def find_with_fingerprint(redis: Redis, secret: str) -> tuple[Key | None, Fingerprint | None]:
    """Return the key with this secret and its fingerprint, by which the limits script detects a change of the key."""
    if not is_well_formed(secret):
        return None, None
    hashed = digest(secret)
    record = tuple(await scripts.FIND.run(redis, secret_name(hashed)))
    key, record_digest = key_with_digest(record) if record else (None, "")
    if key is None or key.revoked is not None or "pending" in record[::2]:
        return None, None
    return key, Fingerprint(hashed, record_digest)


async def create(redis: Redis, *, name: str, **draft: Any) -> tuple[Key, str]:
    """Create a key. Return it with its secret, which cannot be retrieved again.

    Args:
        redis: The database.
        name: A unique name.
        draft: The other fields of `Draft`.

    Raises:
        NameTakenError: Another key has the name.
        ValueError: A field is not valid.
        TimeoutError: Creating the key took longer than PENDING_SECONDS.
    """
    check_name(name)
    key = Key(id=f"key_{random_text(12)}", created=int(time.time()), name=name, **draft)
    secret = draw(key.shard)
    await create_with_digest(redis, key, digest(secret))
    return key, secret


async def create_with_digest(redis: Redis, key: Key, hashed: str) -> None:
    """Create a key whose secret has this digest, which belongs to the key's shard. Raises like `create`."""
    if key.expires is not None and key.expires <= key.created:
        raise ValueError(Message("key_expires_in_past", field="expires", value=key.expires))
    await scripts.RESERVE.run(redis, record_name(key.id), str(PENDING_SECONDS), *flat(fields_of(key)))
    try:
        await claim_name(redis, key)
    except NameTakenError:
        await scripts.GIVE_UP.run(redis, record_name(key.id))
        raise
    entry = new_entry("key.created", key.id, name=key.name, after=operators_fields(key))
    if await scripts.ACTIVATE.run(redis, record_name(key.id), hashed, entry) != "live":
        await scripts.RELEASE.run(redis, NAMES, key.name, key.id)
        raise TimeoutError(f"the key took longer than {PENDING_SECONDS} s to be made; try again")


async def claim_name(redis: Redis, key: Key) -> None:
    """Assign a name to a key whose record is pending. Raises NameTakenError."""
    ended = ""
    while (owner := str(await scripts.CLAIM.run(redis, NAMES, key.name, key.id, ended))) != key.id:
        state, *_ = await scripts.READ.run(redis, record_name(owner), str(REVOKED_SECONDS))
        if state in ("pending", "live"):
            raise NameTakenError(Message("key_name_taken", field="name", name=repr(key.name)))
        ended = owner


async def ensure(redis: Redis, *, name: str, saved: str) -> str:
    """Return a valid secret of the key `name`: `saved` if it is still valid, or else that of a new key.

    A new key replaces an old one of the same name, which is revoked.
    """
    key = await find(redis, saved)
    if key is not None and key.name == name:
        return saved
    if await redis.hexists(NAMES, name):
        await revoke(redis, name)
    _, secret = await create(redis, name=name)
    return secret


async def get(redis: Redis, name_or_id: str) -> Key:
    """Return a key by its id, even if it is revoked, or else by its name. Raises LookupError if there is none."""
    key = await _load(redis, name_or_id) if _ID.fullmatch(name_or_id) else None
    if key is None and (key_id := await redis.hget(NAMES, name_or_id)):
        named = await _load(redis, str(key_id))
        key = named if named is not None and named.revoked is None else None
    if key is None:
        raise _unknown(name_or_id)
    return key


async def is_live(redis: Redis, key_id: str) -> bool:
    """Return whether the key with this id exists and was not revoked."""
    state, *_ = await scripts.READ.run(redis, record_name(key_id), str(REVOKED_SECONDS))
    return str(state) in ("live", "pending")


async def list_all(redis: Redis) -> list[Key]:
    """Return all keys except revoked ones, oldest first."""
    async with redis.pipeline(transaction=False) as pipeline:
        for key_id in (await redis.hgetall(NAMES)).values():
            pipeline.hgetall(record_name(str(key_id)))
        records = await pipeline.execute()
    keys = (key_of(record) for record in records if "pending" not in record)
    listed = [key for key in keys if key is not None and key.revoked is None]
    return sorted(listed, key=lambda key: (key.created, key.name))


async def change(redis: Redis, name_or_id: str, changes: Change) -> Key:
    """Change the fields that are set in `changes`. Every gateway uses them from its next request.

    Raises:
        LookupError: There is no such key.
        RevokedError: The key was revoked.
        TimeoutError: Others change the key all the time.
    """
    key_id = (await get(redis, name_or_id)).id
    for _ in range(_ATTEMPTS):
        state, _, record = await scripts.READ.run(redis, record_name(key_id), str(REVOKED_SECONDS))
        key, record_digest = key_with_digest(tuple(record))
        if key is None:
            raise _unknown(name_or_id)
        if state == "revoked":
            raise _revoked(key)
        changed = _changed(key, changes)
        different = _difference(record, fields_of(changed))
        if not different:
            return changed
        entry = _change_entry(key, changed)
        # The script changes only the record that was read. If it has changed meanwhile, it is read again.
        match await scripts.CHANGE.run(redis, record_name(key_id), record_digest, entry, *flat(different)):
            case "live":
                return changed
            case "revoked":
                raise _revoked(key)
    raise TimeoutError(f"the key {name_or_id!r} is being changed by others all the time; try again")


async def migrate(redis: Redis) -> Migration:
    """Rewrite the records of all valid keys whose form is of an older version.

    Keys stay valid meanwhile. Records that others change at the same time are read again.

    Raises:
        NewerRecordError: A record is of a newer version.
        TimeoutError: Others change a key all the time.
    """
    rewritten = 0
    listed = await list_all(redis)
    for key in listed:
        rewritten += await _rewrite(redis, key.id)
    return Migration(rewritten=rewritten, keys=len(listed))


async def _rewrite(redis: Redis, key_id: str) -> bool:
    """Rewrite a key's record if its form is of an older version. Return whether it was."""
    for _ in range(_ATTEMPTS):
        state, _, record = await scripts.READ.run(redis, record_name(key_id), str(REVOKED_SECONDS))
        key, record_digest = key_with_digest(tuple(record))
        if key is None or state != "live" or not (different := _difference(record, fields_of(key))):
            return False
        # The audit log has no entry of it, because the key stays as it is.
        if await scripts.CHANGE.run(redis, record_name(key_id), record_digest, "", *flat(different)) == "live":
            return True
    raise TimeoutError(f"the key {key_id!r} is being changed by others all the time; try again")


def _difference(record: Sequence[str], fields: dict[EncodableT, EncodableT]) -> dict[EncodableT, EncodableT]:
    """Return the fields that differ from those of `record`, which has names and values alternately."""
    before = dict(zip(record[::2], record[1::2], strict=True))
    return {name: text for name, text in fields.items() if text != before.get(str(name))}


def operators_fields(key: Key) -> dict[str, Any]:
    """Return the fields of a key that an operator has set, as JSON, for the audit log."""
    fields = key.model_dump(mode="json", exclude={"id", "name", "created", "revoked"}, exclude_defaults=True)
    return fields if key.models is None else {**fields, "models": sorted(key.models)}


def _change_entry(key: Key, changed: Key) -> str:
    """Return the entry of the audit log for a change, with the fields that differ."""
    before, after = operators_fields(key), operators_fields(changed)
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return new_entry(
        "key.changed",
        key.id,
        name=key.name,
        before={name: before.get(name) for name in names},
        after={name: after.get(name) for name in names},
    )


def _changed(key: Key, changes: Change) -> Key:
    updates: dict[str, Any] = {
        name: getattr(changes, name) for name in changes.model_fields_set - {"name", "limits", "model_limits"}
    }
    limits = {**dict(key.limits), **{name: getattr(changes.limits, name) for name in changes.limits.model_fields_set}}
    models = {**key.model_limits, **changes.model_limits}
    updates["limits"] = Limits(**limits)
    updates["model_limits"] = {model: limit for model, limit in models.items() if limit != UNLIMITED}
    return key.model_copy(update=updates)


async def rotate(redis: Redis, name_or_id: str, *, grace_seconds: int = GRACE_SECONDS) -> tuple[Key, str]:
    """Create a new secret for a key, and return both. Older secrets stay valid for `grace_seconds`.

    Raises LookupError, RevokedError, and ExpiredError.
    """
    key = await get(redis, name_or_id)
    secret = draw(key.shard)
    entry = new_entry("key.rotated", key.id, name=key.name, after={"grace_seconds": grace_seconds})
    match await scripts.ROTATE.run(redis, record_name(key.id), digest(secret), str(grace_seconds), entry):
        case "live":
            return key, secret
        case "revoked":
            raise _revoked(key)
        case "expired":
            raise ExpiredError(Message("key_expired", key=key.id, name=key.name))
    raise _unknown(name_or_id)


async def revoke(redis: Redis, name_or_id: str) -> tuple[Key, Replication]:
    """Revoke a key. From now on every gateway rejects it. Raises LookupError if there is none."""
    key = await get(redis, name_or_id)
    # WAIT refers to the writes of its own connection.
    async with pinned(redis, record_name(key.id)) as server:
        entry = new_entry("key.revoked", key.id, name=key.name, before=operators_fields(key))
        state = await scripts.REVOKE.run(server, record_name(key.id), str(REVOKED_SECONDS), entry)
        if state not in ("live", "revoked"):
            raise _unknown(name_or_id)
        replicas = int((await server.info("replication"))["connected_slaves"])
        acknowledged = int(await server.wait(1, ACKNOWLEDGE_MS)) if replicas else 0
    await scripts.RELEASE.run(redis, NAMES, key.name, key.id)
    return key, Replication(replicas, acknowledged)


def check_name(name: str) -> None:
    """Raise ValueError for a name that could be mistaken for a secret or an id, or that cannot be part of a URL."""
    if is_well_formed(name):
        raise ValueError(Message("key_name_is_secret", field="name"))
    if _ID.fullmatch(name):
        raise ValueError(Message("key_name_like_id", field="name", value=repr(name)))
    if "/" in name or name in (".", ".."):
        raise ValueError(Message("key_name_not_for_urls", field="name", value=repr(name)))
    if name != name.strip() or any(_is_invisible(character) for character in name):
        raise ValueError(Message("key_name_with_spaces", field="name", value=ascii(name)))


def _is_invisible(character: str) -> bool:
    """Return whether a reader cannot see `character`, so that two names with and without it look the same.

    The joiner and the non-joiner are excepted: Persian is written with them.
    """
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS


def _unknown(name_or_id: str) -> LookupError:
    return LookupError(Message("key_not_found", name=repr(name_or_id)))


def _revoked(key: Key) -> RevokedError:
    return RevokedError(Message("key_revoked", key=key.id, name=key.name))


async def _load(redis: Redis, key_id: str) -> Key | None:
    """Return the key with this id if it is live or revoked."""
    state, revoked, record = await scripts.READ.run(redis, record_name(key_id), str(REVOKED_SECONDS))
    if state not in ("live", "revoked"):
        return None
    key, _ = key_with_digest(tuple(record))
    return key.model_copy(update={"revoked": int(revoked)}) if key is not None and revoked else key
