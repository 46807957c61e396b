"""The models of an API key: its draft, its changes, and its record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.tenancy.limits import NO_BOOLEAN, UNLIMITED, Limits
from services.gateway.tenancy.secret import digest, shard_of

LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970. Redis rejects times that are much later."""


class NameTakenError(ValueError):
    """Another key has this name."""


class RevokedError(ValueError):
    """The key was revoked and cannot be changed any more."""


class ExpiredError(ValueError):
    """The key has expired, so a new secret for it would not be valid."""


# pydantic rejects half of a surrogate pair, which cannot be stored, only in fields with a length.
Word = Annotated[str, Field(max_length=256)]


def _repeatable(schema: dict[str, Any]) -> None:
    """Let the document of a set allow what is accepted: an item that is named twice counts once."""
    schema.pop("uniqueItems", None)


class Draft(BaseModel):
    """The fields of a key that an operator sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=128,
        description="A name to find the key by; unique and not secret.",
        # `check_name` says more, in its own words.
        json_schema_extra={"pattern": r"^[^/\s]([^/]*[^/\s])?$"},
    )
    owner: str = Field("", max_length=128, description="The owner of the key, for usage records.")
    expires: Annotated[int, Field(gt=0, le=LAST_SECOND), NO_BOOLEAN] | None = Field(
        None, description="When it expires, in seconds since 1970."
    )
    tier: Word | None = Field(None, description="The tier whose limits apply where the key has none of its own.")
    models: Annotated[frozenset[Word], Field(json_schema_extra=_repeatable)] | None = Field(
        None, description="The models that it may use; null for all."
    )
    limits: Limits = Field(UNLIMITED, description="Limits on all of its requests.")
    model_limits: dict[Word, Limits] = Field({}, description="Additional limits for single models.")


class Change(Draft):
    """A change of a key. Absent fields stay as they are; null removes a limit, and {} those of a model."""

    name: None = Field(None, description="A name never changes.")  # type: ignore[assignment]  # it is not given


class Key(Draft):
    """A key."""

    id: str
    created: int = Field(description="Seconds since 1970.")
    revoked: int | None = Field(None, description="When it was revoked, in seconds since 1970.")

    @property
    def shard(self) -> str:
        """The hash tag of all Redis names with this key's data."""
        return shard_of_key(self.id)

    @property
    def tenant(self) -> str:
        """A pseudonym of the owner, or of the key without one. Only requests of one tenant share cached prompts."""
        return _tenant(f"owner:{self.owner}" if self.owner else self.id)

    def may_use(self, model: str) -> bool:
        """Return whether the key may use the model."""
        return self.models is None or model in self.models


@lru_cache(maxsize=8192)
def shard_of_key(key_id: str) -> str:
    """Return the hash tag of all Redis names with the data of a key."""
    return shard_of(digest(key_id))


@lru_cache(maxsize=8192)
def _tenant(name: str) -> str:
    return digest(name)[:32]


@dataclass(frozen=True, slots=True)
class Replication:
    """The replication of a change at the time of its report."""

    replicas: int
    """The number of replicas that Redis has."""
    acknowledged: int
    """The number of replicas that had the change after up to a second."""


@dataclass(frozen=True, slots=True)
class Migration:
    """The result of a migration of records."""

    rewritten: int
    """The number of records that had an older form."""
    keys: int
    """The number of keys that were checked."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digests of a key's secret and record. As long as they are the same, the key has not changed."""

    secret: str
    """The secret's digest."""
    record: str
    """The record's SHA-1, as the limits script computes it."""
