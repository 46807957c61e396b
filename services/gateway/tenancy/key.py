"""A key: what an operator decides about it, and what else is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.tenancy.limits import UNLIMITED, Limits
from services.gateway.tenancy.secret import digest, shard_of

LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970. Redis refuses times that are much later."""


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
    limits: Limits = Field(UNLIMITED, description="Limits on all of its requests.")
    model_limits: dict[Word, Limits] = Field({}, description="Further limits on single models, which hold as well.")


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
class Migration:
    """What a migration of records did."""

    rewritten: int
    """Records that had an older form."""
    keys: int
    """All keys that were looked at."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """As what a key was found: while its secret and its record are these, it would be found so again."""

    secret: str
    """The secret's digest."""
    record: str
    """The record's SHA-1, as the limits script makes it."""
