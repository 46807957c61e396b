"""What a key may use: limits of its own, those of its tier, and those of single models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from services.runtime import yaml_file

# The script's numbers are whole up to 2**53, and a full bucket holds 60,000,000 times its limit.
MAX_PER_MINUTE: Final = 100_000_000
MAX_TOKENS: Final = 10**12
PerMinute = Annotated[int, Field(ge=1, le=MAX_PER_MINUTE)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Limits(BaseModel):
    """Limits on requests and tokens. None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: PerMinute | None = Field(None, description="Requests per minute.")
    tpm: PerMinute | None = Field(None, description="Tokens per minute, of prompts and answers.")
    concurrency: PerMinute | None = Field(None, description="Requests at the same time.")
    daily_tokens: Tokens | None = Field(None, description="Tokens per day (UTC).")
    monthly_tokens: Tokens | None = Field(None, description="Tokens per calendar month (UTC).")

    def or_else(self, other: Limits) -> Limits:
        """These limits, and where there is none, those of `other`."""
        own = {name: getattr(self, name) for name in LIMITS}
        return Limits(**{name: getattr(other, name) if value is None else value for name, value in own.items()})


LIMITS: Final = tuple(Limits.model_fields)
UNLIMITED: Final = Limits()


class Tier(Limits):
    """Limits that keys share by name. Each key has the whole of them for itself."""

    models: dict[str, Limits] = Field({}, description="Further limits for single models, which hold as well.")
    queue: bool = Field(False, description="Whether a request waits when the key's concurrency is used up.")
    queue_seconds: float = Field(30.0, gt=0, le=600, description="The longest wait.")
    queue_length: int = Field(100, ge=1, description="How many requests of a key may wait.")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tiers: dict[str, Tier]


def read_tiers(path: Path) -> dict[str, Tier]:
    """The tiers of a YAML file, by name. Raises ValueError that says which value is wrong, and OSError."""
    return yaml_file.read(path, _File).tiers
