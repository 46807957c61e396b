"""Moves keys from one Redis to another: their ids, limits and the digests of their secrets, which stay valid.

A digest is the SHA-256 of 30 random characters, from which the secret cannot be computed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from redis.asyncio import Redis

from services.gateway.redis.audit_log import new_entry
from services.gateway.tenancy import key_scripts as scripts
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Key, NameTakenError
from services.gateway.tenancy.key_records import NAMES, fields_of, flat, key_with_digest, record_name
from services.gateway.tenancy.secret import shard_of

VERSION: Final = 1
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, Field(pattern=r"^key_[0-9A-Za-z]{12}$")]


class ExportedKey(Key):
    """A key with the digests of its secrets."""

    id: KeyId
    secrets: dict[Digest, Annotated[int, Field(ge=0)]] = Field(
        description="The digests of its secrets, each with its expiry in seconds since 1970; 0: the key's own."
    )

    @model_validator(mode="after")
    def _check_shards(self) -> ExportedKey:
        for hashed in self.secrets:
            if shard_of(hashed) != self.shard:
                raise ValueError(f"the secret {hashed[:8]}… does not belong to the key {self.id}")
        return self


class Export(BaseModel):
    """The valid keys of a Redis."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["vilix-keys"] = "vilix-keys"
    version: Literal[1] = VERSION
    keys: list[ExportedKey]


class ImportResult(StrEnum):
    """The state of a key."""

    IMPORTED = "imported"
    PRESENT = "present"
    """A key with this id is or was here, also if it was revoked. It was left as it is."""
    NAME_TAKEN = "name_taken"
    """Another key has its name. Nothing was changed."""


async def export_all(redis: Redis) -> Export:
    """Return all keys that are not revoked, oldest first."""
    exported = []
    for key in await keys.list_all(redis):
        state, record, secrets = await scripts.EXPORT.run(redis, record_name(key.id))
        current, _ = key_with_digest(tuple(record))
        # It may have been revoked since it was listed.
        if state == "live" and current is not None:
            digests = dict(zip(secrets[::2], map(int, secrets[1::2]), strict=True))
            exported.append(ExportedKey(secrets=digests, **dict(current)))
    return Export(keys=exported)


async def import_key(redis: Redis, key: ExportedKey) -> ImportResult:
    """Create a key with its id, limits and secrets, unless there is one with its id or its name.

    Raises:
        ValueError: The name is not valid.
        TimeoutError: Creating the key took longer than keys.PENDING_SECONDS.
    """
    keys.check_name(key.name)
    own = Key(**{name: value for name, value in dict(key).items() if name != "secrets"})
    fields = flat(fields_of(own))
    if await scripts.RESERVE_NEW.run(redis, record_name(key.id), str(keys.PENDING_SECONDS), *fields) != "reserved":
        return ImportResult.PRESENT
    try:
        await keys.claim_name(redis, own)
    except NameTakenError:
        await scripts.GIVE_UP.run(redis, record_name(key.id))
        return ImportResult.NAME_TAKEN
    secrets = [part for hashed, ends in key.secrets.items() for part in (hashed, str(ends))]
    entry = new_entry("key.imported", key.id, name=key.name, after=keys.operators_fields(own))
    if await scripts.ACTIVATE_WITH.run(redis, record_name(key.id), entry, *secrets) != "live":
        await scripts.RELEASE.run(redis, NAMES, key.name, key.id)
        raise TimeoutError(f"the key {key.id} took longer than {keys.PENDING_SECONDS} s to be made; try again")
    return ImportResult.IMPORTED
