"""`vilix keys`: API keys."""

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
    help="""API keys: make, list, change, rotate and revoke them, and see what they used.

    Redis is found by --redis-url, then VILIX_REDIS_URL, then the state of the running local stack.

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
Owner = Annotated[str | None, typer.Option(help="Whose key it is.")]
Models = Annotated[str | None, typer.Option(help="Comma-separated ids of the models that it may use; none: all.")]
Rpm = Annotated[str | None, typer.Option(help="Requests per minute; none for no limit.")]
Tpm = Annotated[str | None, typer.Option(help="Tokens per minute, of prompts and answers.")]
Concurrency = Annotated[str | None, typer.Option(help="Requests at the same time.")]
DailyTokens = Annotated[str | None, typer.Option(help="Tokens per day (UTC).")]
MonthlyTokens = Annotated[str | None, typer.Option(help="Tokens per calendar month (UTC).")]
Expires = Annotated[str | None, typer.Option(help="When it ends: a date (2027-01-31, UTC), or 30d, 12h; none: never.")]
Tier = Annotated[str | None, typer.Option(help="The tier whose limits hold where the key has none of its own.")]
ModelLimit = Annotated[
    list[str] | None,
    typer.Option(help="MODEL:rpm=5,daily_tokens=1000; holds as well as the key's own. MODEL:none takes it away."),
]
TiersFile = Annotated[
    Path | None, typer.Option(envvar="VILIX_TIERS_FILE", help="The tiers; with it, the name of a tier is checked.")
]


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="A name to find the key by; not secret.")],
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
    """Make a key and print it. It is shown this once; only its hash is stored.

    Examples:
      vilix keys create --name shop
      vilix keys create --name shop --rpm 60 --models qwen3-8b --model-limit qwen3-14b:rpm=5 --expires 90d --json
    """
    _reject_secret(name)
    draft = _given(
        owner=owner,
        models=models,
        numbers=(rpm, tpm, concurrency, daily_tokens, monthly_tokens),
        expires=expires,
        tier=tier,
        model_limit=model_limit,
        tiers_file=tiers_file,
    )
    key, secret = run(redis_url, state_dir, lambda redis: keys.create(redis, name=name, **draft))
    _print_secret(key, secret, as_json=as_json, note="Made")


@app.command("list")
def list_keys(redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR, as_json: AsJson = False) -> None:
    """List the keys that were not revoked, oldest first.

    Examples:
      vilix keys list
      vilix keys list --json
    """
    found = run(redis_url, state_dir, keys.list_all)
    if as_json:
        print(json.dumps([_shown(key) for key in found], ensure_ascii=False))
        return
    table = Table("id", "name", "owner", "created", "expires", "tier", "limits", box=None)
    for key in found:
        own = ", ".join(f"{name} {value}" for name, value in key.limits if value is not None)
        table.add_row(
            key.id, key.name, key.owner, _date(key.created), _date(key.expires), key.tier or "", own or "none"
        )
    Console().print(table)


@app.command()
def show(name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR) -> None:
    """Show everything about a key, as JSON; never the key itself.

    Examples:
      vilix keys show shop
    """
    _reject_secret(name_or_id)
    key = run(redis_url, state_dir, lambda redis: keys.get(redis, name_or_id))
    print(json.dumps(_shown(key), ensure_ascii=False, indent=2))


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
    """Change a key. What is not given stays; `none` takes a limit away. It holds from the next request.

    Examples:
      vilix keys set shop --rpm 120 --tpm none
      vilix keys set shop --model-limit qwen3-14b:concurrency=2 --models none
    """
    _reject_secret(name_or_id)
    given = _given(
        owner=owner,
        models=models,
        numbers=(rpm, tpm, concurrency, daily_tokens, monthly_tokens),
        expires=expires,
        tier=tier,
        model_limit=model_limit,
        tiers_file=tiers_file,
    )
    if not given:
        fail("nothing was given that could be changed; see vilix keys set --help")
    key = run(redis_url, state_dir, lambda redis: keys.change(redis, name_or_id, Change(**given)))
    print(f"Changed {key.id} ({key.name}).")


@app.command()
def rotate(
    name_or_id: NameOrId,
    grace: Annotated[str, typer.Option(help="How long the older key stays valid, for example 24h or 0h.")] = "24h",
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a new secret for a key and print it. The older one stays valid for a while.

    Examples:
      vilix keys rotate shop
      vilix keys rotate shop --grace 1h
    """
    _reject_secret(name_or_id)
    seconds = _span(grace)
    if seconds is None:
        fail(f"--grace {grace!r} is no length of time; give 24h, 90m or 7d")
    key, secret = run(redis_url, state_dir, lambda redis: keys.rotate(redis, name_or_id, grace_seconds=seconds))
    _print_secret(key, secret, as_json=as_json, note=f"The older key ends in {grace}. Rotated")


@app.command()
def revoke(name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR) -> None:
    """Revoke a key. It is refused from now on.

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
    """Rewrite the records of keys that an earlier version of Vilix wrote. Keys stay valid meanwhile.

    Gateways understand records of earlier versions. Run the command once all gateways have been upgraded: a later
    version may drop support for the old form.

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
    by: Annotated[Literal["model", "day"], typer.Option(help="Add up by model or by day.")] = "day",
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days, today included.")] = 30,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show what a key used, by model or by day (UTC). A revoked key is found by its id.

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
    """What an operator should know about a revocation; empty when all is well."""
    if not replication.replicas or replication.acknowledged:
        return ""
    return (
        f"none of {replication.replicas} replicas acknowledged it within {keys.ACKNOWLEDGE_MS} ms; "
        "if Redis fails over now, the key may be valid again. Revoke it once more when the replicas are back"
    )


def _given(
    *,
    owner: str | None,
    models: str | None,
    numbers: tuple[str | None, ...],
    expires: str | None,
    tier: str | None,
    model_limit: list[str] | None,
    tiers_file: Path | None,
) -> dict[str, Any]:
    """The fields that were given, for Draft or Change."""
    given: dict[str, Any] = {}
    if owner is not None:
        given["owner"] = owner
    if models is not None:
        given["models"] = None if models == NOTHING else frozenset(part.strip() for part in models.split(","))
    limits = {name: _number(name, text) for name, text in zip(LIMITS, numbers, strict=True) if text is not None}
    if limits:
        given["limits"] = limits
    if expires is not None:
        given["expires"] = None if expires == NOTHING else _moment(expires)
    if tier is not None:
        _check_tier(tier, tiers_file)
        given["tier"] = None if tier == NOTHING else tier
    if model_limit:
        given["model_limits"] = dict(_model_limit(text) for text in model_limit)
    return given


def _number(name: str, text: str) -> int | None:
    if text == NOTHING:
        return None
    if not text.isdecimal() or int(text) < 1:
        fail(f"--{name.replace('_', '-')} {text!r} is neither a number above 0 nor none")
    return int(text)


def _model_limit(text: str) -> tuple[str, dict[str, int | None]]:
    model, _, settings = text.rpartition(":")
    pairs = [] if settings == NOTHING else [part.partition("=")[::2] for part in settings.split(",")]
    if not model or any(name not in LIMITS for name, _ in pairs):
        fail(f"--model-limit {text!r} is not MODEL:NAME=NUMBER,…; the names are {', '.join(LIMITS)}")
    return model, {name: _number(name, value) for name, value in pairs}


def _check_tier(tier: str, tiers_file: Path | None) -> None:
    if tiers_file is None or tier == NOTHING:
        return
    try:
        tiers = read_tiers(tiers_file)
    except (OSError, ValueError) as error:
        fail(str(error))
    if tier not in tiers:
        fail(f"there is no tier {tier!r} in {tiers_file}; there are: {', '.join(tiers)}")


def _moment(text: str) -> int:
    seconds = _span(text)
    if seconds is not None:
        return int(time.time()) + seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--expires {text!r} is neither a date like 2027-01-31 nor a length of time like 30d")
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _span(text: str) -> int | None:
    """Seconds of 90m, 12h or 30d."""
    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    if text[:-1].isdecimal() and text[-1] in units:
        return int(text[:-1]) * int(units[text[-1]].total_seconds())
    return None


def _print_secret(key: Key, secret: str, *, as_json: bool, note: str) -> None:
    if as_json:
        print(json.dumps({"key": secret, **_shown(key)}, ensure_ascii=False))
    else:
        print(secret)
        print(f"{note} {key.id} ({key.name}). Keep it safe: it cannot be shown again.", file=sys.stderr)


def _shown(key: Key) -> dict[str, Any]:
    shown = key.model_dump(mode="json")
    return shown | {"models": None if key.models is None else sorted(key.models)}


def _date(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _reject_secret(argument: str) -> None:
    if argument.startswith(PREFIX):
        fail(
            "that is a key itself, which every user of this machine could read in the process list; "
            "give its name or id instead (vilix keys list). Revoke it if it was shown to others"
        )
