"""How keys are written in Redis: the names of what belongs to a key, and the fields of its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from redis.typing import EncodableT

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import LIMITS, Limits
from services.gateway.tenancy.secret import digest, shard_of

NAMES: Final = "vilix:names"
"""The ids of all keys that were not revoked, by name."""
_MODEL_LIMITS: Final = TypeAdapter(dict[str, Limits])


def flat(fields: dict[EncodableT, EncodableT]) -> list[str]:
    """Return names and values in turns, as scripts take them."""
    return [str(part) for pair in fields.items() for part in pair]


def fields_of(key: Key) -> dict[EncodableT, EncodableT]:
    """Return the record of a key: every field is text, and empty where there is nothing."""
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
def key_with_digest(record: tuple[str, ...]) -> tuple[Key | None, str]:
    """Return the key and the digest of names and values in turns.

    Cached, because a key's record rarely changes between its requests.
    """
    record_digest = hashlib.sha1("\0".join(record).encode(), usedforsecurity=False).hexdigest()
    return key_of(dict(zip(record[::2], record[1::2], strict=True))), record_digest


def key_of(record: Mapping[Any, Any]) -> Key | None:
    """Return the key of a record; None for an empty one."""
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
        limits=Limits(**limits),
        model_limits=_MODEL_LIMITS.validate_json(record["model_limits"]) if record["model_limits"] else {},
        revoked=int(record["revoked"]) if record.get("revoked") else None,
    )


def secret_name(hashed: str) -> str:
    """Return the name under which the id of the key with this secret is found. `hashed` is the secret's digest."""
    return f"vilix:{{{shard_of(hashed)}}}:secret:{hashed}"


def record_name(key_id: str) -> str:
    """Return the name of a key's record."""
    return f"vilix:{{{shard_of(digest(key_id))}}}:key:{key_id}"
