"""The limits of keys, of tiers, and of single models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.runtime import yaml_file

# Lua's numbers are exact up to 2**53, and the script's buckets hold 60,000,000 times their limit.
MAX_PER_MINUTE: Final = 100_000_000
MAX_TOKENS: Final = 10**12


def _check_no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it must be a number")  # noqa: TRY004 - pydantic expects a ValueError
    return value


NO_BOOLEAN: Final = BeforeValidator(_check_no_boolean)
"""Rejects `true` and `false` for a number, which pydantic reads as 1 and 0."""
PerMinute = Annotated[int, Field(ge=1, le=MAX_PER_MINUTE), NO_BOOLEAN]
MAX_COST: Final = 10**13
"""The largest budget in money. Lua's JSON has 14 digits."""
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS), NO_BOOLEAN]
Cost = Annotated[int, Field(ge=1, le=MAX_COST), NO_BOOLEAN]


class Limits(BaseModel):
    """Limits on requests, tokens and money. None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: PerMinute | None = Field(None, description="Requests per minute.")
    tpm: PerMinute | None = Field(None, description="Tokens per minute, of prompts and completions.")
    concurrency: PerMinute | None = Field(None, description="Requests at the same time.")
    daily_tokens: Tokens | None = Field(None, description="Tokens per day (UTC).")
    monthly_tokens: Tokens | None = Field(None, description="Tokens per calendar month (UTC).")
    daily_cost: Cost | None = Field(
        None, description="Money per day (UTC), in the smallest unit of the file of prices; without that, no limit."
    )
    weekly_cost: Cost | None = Field(None, description="The same per week, which begins on Monday (UTC).")
    monthly_cost: Cost | None = Field(None, description="The same per calendar month (UTC).")

    def or_else(self, other: Limits) -> Limits:
        """Return these limits, completed by those of `other`."""
        own = {name: getattr(self, name) for name in LIMITS}
        return Limits(**{name: getattr(other, name) if value is None else value for name, value in own.items()})


LIMITS: Final = tuple(Limits.model_fields)
COSTS: Final = ("daily_cost", "weekly_cost", "monthly_cost")
"""The limits in money."""
UNLIMITED: Final = Limits()


class Tier(Limits):
    """Limits with a name, which keys refer to. They apply to each key separately."""

    models: dict[str, Limits] = Field({}, description="Additional limits for single models.")
    queue: bool = Field(False, description="Whether a request waits when the key's concurrency is used up.")
    queue_seconds: float = Field(30.0, gt=0, le=600, description="The longest wait, in seconds.")
    queue_length: int = Field(100, ge=1, description="How many requests of a key may wait.")
    store_seconds: int | None = Field(
        None, ge=0, le=400 * 86_400, description="Seconds for which responses are stored; 0: they are not stored."
    )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tiers: dict[str, Tier]


def read_tiers(path: Path) -> dict[str, Tier]:
    """Return the tiers of a YAML file by name. Raises OSError, and ValueError that names the wrong value."""
    return yaml_file.read(path, _File).tiers
