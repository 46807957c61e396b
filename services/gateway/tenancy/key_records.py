"""Reads and writes the records of keys in Redis: the names of a key's data, and the fields of its record.

A record has the field `version`, the version of its form. A record of an older version is understood, and rewritten by
the next change of the key or by `vilix keys migrate`. To change the form: raise VERSION, and append to MIGRATIONS a
function that turns the fields of a record of the last version into those of the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from redis.typing import EncodableT

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import COSTS, LIMITS, Limits
from services.gateway.tenancy.secret import digest, shard_of
from services.runtime.messages.message import Message

NAMES: Final = "vilix:names"
"""The ids of all keys that were not revoked, by name."""
VERSION: Final = 1
"""The version of the form in which records are written, except those of keys with budgets in money."""
MONEY_VERSION: Final = 2
"""The version of records of keys with budgets in money, which gateways of earlier versions would not enforce."""
_MODEL_LIMITS: Final = TypeAdapter(dict[str, Limits])


class NewerRecordError(ValueError):
    """A record was written by a newer version, in a form that may restrict the key in a way unknown to this one."""


def flat(fields: dict[EncodableT, EncodableT]) -> list[str]:
    """Return names and values alternately, as scripts take them."""
    return [str(part) for pair in fields.items() for part in pair]


def fields_of(key: Key) -> dict[EncodableT, EncodableT]:
    """Return the fields of a key's record. All are text; those without a value are empty."""
    fields: dict[EncodableT, EncodableT] = {
        "version": str(MONEY_VERSION if _has_money(key) else VERSION),
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


def _has_money(key: Key) -> bool:
    return any(getattr(limits, name) for limits in (key.limits, *key.model_limits.values()) for name in COSTS)


@lru_cache(maxsize=4096)
def key_with_digest(record: tuple[str, ...]) -> tuple[Key | None, str]:
    """Return the key and the digest of a record, which has names and values alternately.

    Cached, because a key's record rarely changes between its requests.
    """
    record_digest = hashlib.sha1("\0".join(record).encode(), usedforsecurity=False).hexdigest()
    return key_of(dict(zip(record[::2], record[1::2], strict=True))), record_digest


def version_of(record: Mapping[Any, Any]) -> int:
    """Return the version of a record's form. Records of the first form have no such field; their version is 0."""
    return int(record.get("version") or 0)


def _name_every_field(record: Mapping[Any, Any]) -> dict[Any, Any]:
    """Migrate from version 0, whose records lack the fields of limits and models that a key does not have."""
    return {**dict.fromkeys(("tier", "models", "model_limits", *LIMITS), ""), **record, "version": "1"}


def _name_costs(record: Mapping[Any, Any]) -> dict[Any, Any]:
    """Migrate from version 1, whose earliest records lack the fields of budgets in money."""
    return {**dict.fromkeys(COSTS, ""), **record, "version": "2"}


MIGRATIONS: Final[tuple[Callable[[Mapping[Any, Any]], dict[Any, Any]], ...]] = (_name_every_field, _name_costs)
"""For each version but the last: the function that turns the fields of its records into those of the next one."""


def migrated(record: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the fields of a record in the present form.

    Raises:
        NewerRecordError: The record is of a newer version.
    """
    version = version_of(record)
    if version > MONEY_VERSION:
        key = str(record.get("id"))
        raise NewerRecordError(Message("key_record_newer", key=key, value=version, limit=MONEY_VERSION))
    for migrate in MIGRATIONS[version:]:
        record = migrate(record)
    return record


def key_of(record: Mapping[Any, Any]) -> Key | None:
    """Return the key of a record, whatever its version; None for an empty one. Raises NewerRecordError."""
    if not record:
        return None
    record = migrated(record)
    limits = {name: int(record[name]) if record[name] else None for name in LIMITS}
    return Key(
        id=record["id"],
        name=record["name"],
        owner=record["owner"],
        created=int(record["created"]),
        expires=int(record["expires"]) if record["expires"] else None,
        tier=record["tier"] or None,
        models=frozenset(orjson.loads(record["models"])) if record["models"] else None,
        limits=Limits(**limits),
        model_limits=_MODEL_LIMITS.validate_json(record["model_limits"]) if record["model_limits"] else {},
        revoked=int(record["revoked"]) if record.get("revoked") else None,
    )


def secret_name(hashed: str) -> str:
    """Return the Redis name of the id of the key with this secret. `hashed` is the secret's digest."""
    return f"vilix:{{{shard_of(hashed)}}}:secret:{hashed}"


def record_name(key_id: str) -> str:
    """Return the Redis name of a key's record."""
    return f"vilix:{{{shard_of(digest(key_id))}}}:key:{key_id}"
