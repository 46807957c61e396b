"""`vilix keys`: manage API keys."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from services.cli.key_options import KeyOptions, duration_seconds
from services.cli.option_group import with_options
from services.cli.redis_access import AsJson, RedisUrl, StateDir, fail, run
from services.gateway.tenancy import keys, usage
from services.gateway.tenancy.key import Change, Key, Replication
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

RUN_DIR = Path(".run")
NameOrId = Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name or id, never the key itself.")]


@app.command()
@with_options(KeyOptions)
def create(
    *,
    name: Annotated[str, typer.Option(help="The name of the key, which is not secret.")],
    options: KeyOptions,
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
    draft = options.key_fields()
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
@with_options(KeyOptions)
def set_limits(
    name_or_id: NameOrId,
    *,
    options: KeyOptions,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
) -> None:
    """Change a key. Omitted options stay as they are, and `none` removes a limit. Changes apply from the next request.

    Examples:
      vilix keys set shop --rpm 120 --tpm none
      vilix keys set shop --model-limit qwen3-14b:concurrency=2 --models none
    """
    _reject_secret(name_or_id)
    fields = options.key_fields()
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
    seconds = duration_seconds(grace)
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
