"""`vilix keys`: manage API keys."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from services.cli.redis_access import AsJson, RedisUrl, StateDir, fail, run
from services.gateway.tenancy import keys, usage
from services.gateway.tenancy.key import Change, Key, Replication
from services.gateway.tenancy.limits import LIMITS, read_tiers
from services.gateway.tenancy.secret import PREFIX

app = typer.Typer(
    help="""Create, list, change, rotate and revoke API keys, and show their usage.

    The URL of Redis is --redis-url, else VILIX_REDIS_URL, else the one of the running local stack.

    Examples:
      vilix keys create --name shop --rpm 60 --tpm 100000 --concurrency 5
      vilix keys set shop --daily-tokens 2000000 --tpm none
      vilix keys usage shop --by model
      vilix keys revoke shop
    """,
    no_args_is_help=True,
)

NOTHING = "none"
RUN_DIR = Path(".run")
NameOrId = Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name or id, never the key itself.")]
Owner = Annotated[str | None, typer.Option(help="The owner of the key.")]
Models = Annotated[
    str | None, typer.Option(help="Comma-separated ids of the models that the key may use; none: all models.")
]
Rpm = Annotated[str | None, typer.Option(help="Requests per minute; none: no limit.")]
Tpm = Annotated[str | None, typer.Option(help="Tokens per minute, of prompts and responses.")]
Concurrency = Annotated[str | None, typer.Option(help="Requests at the same time.")]
DailyTokens = Annotated[str | None, typer.Option(help="Tokens per day (UTC).")]
MonthlyTokens = Annotated[str | None, typer.Option(help="Tokens per calendar month (UTC).")]
Expires = Annotated[
    str | None, typer.Option(help="When the key expires: a date (2027-01-31, UTC), or 30d, 12h; none: never.")
]
Tier = Annotated[str | None, typer.Option(help="The tier whose limits apply where the key has none of its own.")]
ModelLimit = Annotated[
    list[str] | None,
    typer.Option(
        help="MODEL:rpm=5,daily_tokens=1000: limits that apply in addition to the key's own. MODEL:none removes them."
    ),
]
TiersFile = Annotated[
    Path | None, typer.Option(envvar="VILIX_TIERS_FILE", help="The file of tiers, in which --tier is looked up.")
]


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="The name of the key, which is not secret.")],
    owner: Owner = None,
    models: Models = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    daily_tokens: DailyTokens = None,
    monthly_tokens: MonthlyTokens = None,
    expires: Expires = None,
    tier: Tier = None,
    model_limit: ModelLimit = None,
    tiers_file: TiersFile = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It is shown only once, because only its hash is stored.

    Examples:
      vilix keys create --name shop
      vilix keys create --name shop --rpm 60 --models qwen3-8b --model-limit qwen3-14b:rpm=5 --expires 90d --json
    """
    _reject_secret(name)
    draft = _fields(
        owner=owner,
        models=models,
        numbers=(rpm, tpm, concurrency, daily_tokens, monthly_tokens),
        expires=expires,
        tier=tier,
        model_limit=model_limit,
        tiers_file=tiers_file,
    )
    key, secret = run(redis_url, state_dir, lambda redis: keys.create(redis, name=name, **draft))
    _print_secret(key, secret, as_json=as_json, note="Created")


@app.command("list")
def list_keys(redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR, as_json: AsJson = False) -> None:
    """List the keys that are not revoked, oldest first.

    Examples:
      vilix keys list
      vilix keys list --json
    """
    listed = run(redis_url, state_dir, keys.list_all)
    if as_json:
        print(json.dumps([_rendered(key) for key in listed], ensure_ascii=False))
        return
    table = Table("id", "name", "owner", "created", "expires", "tier", "limits", box=None)
    for key in listed:
        own = ", ".join(f"{name} {value}" for name, value in key.limits if value is not None)
        table.add_row(
            key.id, key.name, key.owner, _date(key.created), _date(key.expires), key.tier or "", own or "none"
        )
    Console().print(table)


@app.command()
def show(name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR) -> None:
    """Show the record of a key as JSON, without the key itself.

    Examples:
      vilix keys show shop
    """
    _reject_secret(name_or_id)
    key = run(redis_url, state_dir, lambda redis: keys.get(redis, name_or_id))
    print(json.dumps(_rendered(key), ensure_ascii=False, indent=2))


@app.command("set")
def set_limits(
    name_or_id: NameOrId,
    *,
    owner: Owner = None,
    models: Models = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    daily_tokens: DailyTokens = None,
    monthly_tokens: MonthlyTokens = None,
    expires: Expires = None,
    tier: Tier = None,
    model_limit: ModelLimit = None,
    tiers_file: TiersFile = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
) -> None:
    """Change a key. Omitted options stay as they are, and `none` removes a limit. Changes apply from the next request.

    Examples:
      vilix keys set shop --rpm 120 --tpm none
      vilix keys set shop --model-limit qwen3-14b:concurrency=2 --models none
    """
    _reject_secret(name_or_id)
    fields = _fields(
        owner=owner,
        models=models,
        numbers=(rpm, tpm, concurrency, daily_tokens, monthly_tokens),
        expires=expires,
        tier=tier,
        model_limit=model_limit,
        tiers_file=tiers_file,
    )
    if not fields:
        fail("there is nothing to change: set at least one option (see vilix keys set --help)")
    key = run(redis_url, state_dir, lambda redis: keys.change(redis, name_or_id, Change(**fields)))
    print(f"Changed {key.id} ({key.name}).")


@app.command()
def rotate(
    name_or_id: NameOrId,
    grace: Annotated[str, typer.Option(help="How long the older key stays valid, for example 24h or 0h.")] = "24h",
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Create a new secret for a key and print it. The older one stays valid for a grace period.

    Examples:
      vilix keys rotate shop
      vilix keys rotate shop --grace 1h
    """
    _reject_secret(name_or_id)
    seconds = _duration_seconds(grace)
    if seconds is None:
        fail(f"--grace is {grace!r}; it must be a duration such as 24h, 90m or 7d")
    key, secret = run(redis_url, state_dir, lambda redis: keys.rotate(redis, name_or_id, grace_seconds=seconds))
    _print_secret(key, secret, as_json=as_json, note=f"The older key expires in {grace}. Rotated")


@app.command()
def revoke(name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR) -> None:
    """Revoke a key. Requests with it are rejected from now on.

    Examples:
      vilix keys revoke shop
    """
    _reject_secret(name_or_id)
    key, replication = run(redis_url, state_dir, lambda redis: keys.revoke(redis, name_or_id))
    print(f"Revoked {key.id} ({key.name}).")
    if warning := unacknowledged(replication):
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def migrate(redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR, as_json: AsJson = False) -> None:
    """Rewrite the records of keys that an earlier version of Vilix wrote. Keys stay valid in the meantime.

    Gateways understand records of earlier versions. Run the command once all gateways have been upgraded: a later
    version may drop support for the old format.

    Examples:
      vilix keys migrate
    """
    result = run(redis_url, state_dir, keys.migrate)
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        print(f"Rewrote {result.rewritten} of {result.keys} records.")


@app.command("usage")
def show_usage(
    name_or_id: NameOrId,
    *,
    by: Annotated[Literal["model", "day"], typer.Option(help="Sum by model or by day.")] = "day",
    days: Annotated[int, typer.Option(min=1, max=400, help="The number of days, today included.")] = 30,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the usage of a key by model or by day (UTC). A revoked key is found by its id.

    Examples:
      vilix keys usage shop
      vilix keys usage shop --by model --days 7 --json
    """
    _reject_secret(name_or_id)

    async def read(redis: Any) -> list[usage.Usage]:
        key = await keys.get(redis, name_or_id)
        return await usage.of_days(redis, key, last=datetime.now(UTC).date(), days=days)

    rows = usage.summed(run(redis_url, state_dir, read), by=by)
    if as_json:
        print(json.dumps([{by: name, **counts.numbers()} for name, counts in rows.items()], ensure_ascii=False))
        return
    table = Table(by, *(name.replace("_", " ") for name in usage.COUNTERS), box=None)
    for name, counts in rows.items():
        table.add_row(name, *(str(value) for value in counts.numbers().values()))
    Console().print(table)


def unacknowledged(replication: Replication) -> str:
    """Return a warning for the operator if no replica has acknowledged a revocation, else an empty string."""
    if not replication.replicas or replication.acknowledged:
        return ""
    return (
        f"none of {replication.replicas} replicas acknowledged it within {keys.ACKNOWLEDGE_MS} ms; "
        "if Redis fails over now, the key may be valid again. Revoke it once more when the replicas are back"
    )


def _fields(
    *,
    owner: str | None,
    models: str | None,
    numbers: tuple[str | None, ...],
    expires: str | None,
    tier: str | None,
    model_limit: list[str] | None,
    tiers_file: Path | None,
) -> dict[str, Any]:
    """Return the fields of `Draft` or `Change` for the options that are set."""
    fields: dict[str, Any] = {}
    if owner is not None:
        fields["owner"] = owner
    if models is not None:
        fields["models"] = None if models == NOTHING else frozenset(part.strip() for part in models.split(","))
    limits = {name: _number(name, text) for name, text in zip(LIMITS, numbers, strict=True) if text is not None}
    if limits:
        fields["limits"] = limits
    if expires is not None:
        fields["expires"] = None if expires == NOTHING else _moment(expires)
    if tier is not None:
        _check_tier(tier, tiers_file)
        fields["tier"] = None if tier == NOTHING else tier
    if model_limit:
        fields["model_limits"] = dict(_model_limit(text) for text in model_limit)
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
    seconds = _duration_seconds(text)
    if seconds is not None:
        return int(time.time()) + seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--expires is {text!r}; it must be a date such as 2027-01-31 or a duration such as 30d")
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _duration_seconds(text: str) -> int | None:
    """Return the seconds of a duration such as 90m, 12h or 30d, or None for another text."""
    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    if text[:-1].isdecimal() and text[-1] in units:
        return int(text[:-1]) * int(units[text[-1]].total_seconds())
    return None


def _print_secret(key: Key, secret: str, *, as_json: bool, note: str) -> None:
    if as_json:
        print(json.dumps({"key": secret, **_rendered(key)}, ensure_ascii=False))
    else:
        print(secret)
        print(f"{note} {key.id} ({key.name}). Keep it safe: it cannot be shown again.", file=sys.stderr)


def _rendered(key: Key) -> dict[str, Any]:
    return key.model_dump(mode="json") | {"models": None if key.models is None else sorted(key.models)}


def _date(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _reject_secret(argument: str) -> None:
    if argument.startswith(PREFIX):
        fail(
            "that is a key itself, which every user of this machine could read in the process list; "
            "give its name or id instead (vilix keys list). Revoke it if it was shown to others"
        )
