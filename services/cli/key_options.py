"""The options of the commands that create and change keys."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.failure import fail
from services.gateway.tenancy.limits import LIMITS, read_tiers

NOTHING = "none"
_LIMIT = "N|none"


@dataclass(frozen=True)
class KeyOptions:
    """The fields of a key, as they are written on the command line. An omitted option is None."""

    owner: Annotated[str | None, typer.Option(metavar="NAME", help="The owner of the key.")] = None
    models: Annotated[
        str | None,
        typer.Option(metavar="ID,ID|none", help="The ids of the models that the key may use; none: all models."),
    ] = None
    rpm: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Requests per minute; none: no limit.")] = None
    tpm: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Tokens per minute, of prompts and responses.")] = None
    concurrency: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Requests at the same time.")] = None
    daily_tokens: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Tokens per day (UTC).")] = None
    monthly_tokens: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Tokens per calendar month (UTC).")] = None
    daily_cost: Annotated[
        str | None,
        typer.Option(metavar=_LIMIT, help="Money per day (UTC), in the smallest unit of the gateways' prices."),
    ] = None
    weekly_cost: Annotated[
        str | None, typer.Option(metavar=_LIMIT, help="Money per week, which begins on Monday (UTC).")
    ] = None
    monthly_cost: Annotated[str | None, typer.Option(metavar=_LIMIT, help="Money per calendar month (UTC).")] = None
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE|30d|none", help="When the key expires: a date (UTC), or 30d, 12h; none: never."),
    ] = None
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER|none", help="The tier whose limits apply where the key has none of its own."),
    ] = None
    model_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL:LIMITS",
            help="MODEL:rpm=5,daily_tokens=1000: limits that apply in addition to the key's own. MODEL:none removes "
            "them. Repeatable.",
        ),
    ] = None
    tiers_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="VILIX_TIERS_FILE", help="The file of tiers, in which --tier is looked up."
        ),
    ] = None

    def key_fields(self) -> dict[str, Any]:
        """Return the fields of `Draft` or `Change` for the options that are set."""
        fields: dict[str, Any] = {}
        if self.owner is not None:
            fields["owner"] = self.owner
        if self.models is not None:
            fields["models"] = (
                None if self.models == NOTHING else frozenset(part.strip() for part in self.models.split(","))
            )
        texts = {name: getattr(self, name) for name in LIMITS}
        limits = {name: _number(name, text) for name, text in texts.items() if text is not None}
        if limits:
            fields["limits"] = limits
        if self.expires is not None:
            fields["expires"] = None if self.expires == NOTHING else _moment(self.expires)
        if self.tier is not None:
            _check_tier(self.tier, self.tiers_file)
            fields["tier"] = None if self.tier == NOTHING else self.tier
        if self.model_limit:
            fields["model_limits"] = dict(_model_limit(text) for text in self.model_limit)
        return fields


def _number(name: str, text: str) -> int | None:
    if text == NOTHING:
        return None
    if not text.isdecimal() or int(text) < 1:
        fail(f"--{name.replace('_', '-')} is {text!r}; it must be a number above 0, or none")
    return int(text)


def _model_limit(text: str) -> tuple[str, dict[str, int | None]]:
    model, _, settings = text.rpartition(":")
    pairs = [] if settings == NOTHING else [part.partition("=")[::2] for part in settings.split(",")]
    if not model or any(name not in LIMITS for name, _ in pairs):
        fail(f"--model-limit is {text!r}; it must be MODEL:NAME=NUMBER,…, and the names are {', '.join(LIMITS)}")
    return model, {name: _number(name, value) for name, value in pairs}


def _check_tier(tier: str, tiers_file: Path | None) -> None:
    if tiers_file is None or tier == NOTHING:
        return
    try:
        tiers = read_tiers(tiers_file)
    except (OSError, ValueError) as error:
        fail(str(error))
    if tier not in tiers:
        fail(f"{tiers_file} has no tier {tier!r}; its tiers are {', '.join(tiers)}")


def _moment(text: str) -> int:
    seconds = duration_seconds(text)
    if seconds is not None:
        return int(time.time()) + seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--expires is {text!r}; it must be a date such as 2027-01-31 or a duration such as 30d")
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def duration_seconds(text: str) -> int | None:
    """Return the seconds of a duration such as 90m, 12h or 30d, or None for another text."""
    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    if text[:-1].isdecimal() and text[-1] in units:
        return int(text[:-1]) * int(units[text[-1]].total_seconds())
    return None
