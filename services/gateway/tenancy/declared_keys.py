"""Keys that are declared in a file: created if they do not exist, and changed to what the file says.

A declaration has the digest of a key's secret and never the secret, so that it may be part of manifests. Whoever has
the secret has drawn it with `vilix keys draw`. The id of a declared key follows from its digest: one that was revoked
is recognized, and does not come back.
"""

from __future__ import annotations

import hashlib
import string
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

from services.gateway.tenancy import key_scripts as scripts
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change, Draft, Key
from services.gateway.tenancy.key_records import key_with_digest, record_name, secret_name
from services.gateway.tenancy.limits import LIMITS, UNLIMITED
from services.gateway.tenancy.secret import digest, shard_of
from services.runtime import yaml_file

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH: Final = 12
Outcome = Literal["created", "changed", "unchanged"]


class DeclaredKey(Draft):
    """A key in the file."""

    digest: str = Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the key's secret.")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[DeclaredKey]


def read(path: Path) -> list[DeclaredKey]:
    """Return the declared keys of a YAML file. Raises OSError, and ValueError that names the wrong value."""
    declared = yaml_file.read(path, _File).keys
    for field in ("name", "digest"):
        values = [getattr(key, field) for key in declared]
        if repeated := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"{path}: several keys have the {field} {repeated.pop()}")
    for key in declared:
        keys.check_name(key.name)
    return declared


async def apply(redis: Redis, declared: Sequence[DeclaredKey]) -> list[tuple[Key, Outcome]]:
    """Create or change the declared keys, and return them.

    Raises:
        ValueError: Another key has the name or the digest, or the key was revoked. Keys before it are done.
    """
    return [await _apply(redis, key) for key in declared]


async def _apply(redis: Redis, declared: DeclaredKey) -> tuple[Key, Outcome]:
    key_id = _id_of(declared.digest)
    state, _, record = await scripts.READ.run(redis, record_name(key_id), str(keys.REVOKED_SECONDS))
    existing, _ = key_with_digest(tuple(record))
    if state == "revoked":
        raise ValueError(f"{declared.name}: the key {key_id} was revoked; remove it, or declare a new digest")
    if state != "live" or existing is None:
        fields = declared.model_dump(exclude={"digest"})
        key = Key(id=key_id, created=int(time.time()), **fields)
        await keys.create_with_digest(redis, key, declared.digest)
        return key, "created"
    if existing.name != declared.name:
        raise ValueError(f"{declared.name}: the key {existing.id} with this digest has the name {existing.name}")
    if not await redis.exists(secret_name(declared.digest)):
        raise ValueError(f"{declared.name}: the key {existing.id} was rotated; declare the digest of its new secret")
    changed = await keys.change(redis, existing.id, _change(existing, declared))
    return changed, "unchanged" if changed == existing else "changed"


def _change(existing: Key, declared: DeclaredKey) -> Change:
    """Return the change to exactly what is declared: what it leaves out has its default."""
    fields: dict[str, Any] = {name: getattr(declared, name) for name in ("owner", "expires", "tier", "models")}
    fields["limits"] = {name: getattr(declared.limits, name) for name in LIMITS}
    fields["model_limits"] = {**dict.fromkeys(existing.model_limits, UNLIMITED), **declared.model_limits}
    return Change(**fields)


def _id_of(hashed: str) -> str:
    """Return the id of the declared key with this digest, which is in the same shard as its secret."""
    for attempt in count():
        number = int(hashlib.sha256(f"{hashed}:{attempt}".encode()).hexdigest(), 16)
        text = ""
        for _ in range(_ID_LENGTH):
            number, place = divmod(number, len(_ALPHABET))
            text += _ALPHABET[place]
        if shard_of(digest(f"key_{text}")) == shard_of(hashed):
            return f"key_{text}"
    raise AssertionError("the attempts never end")
