"""`vilix keys`: manage API keys."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer

from services.cli import declared_keys, key_list, key_transfer
from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.key_list import describe_limits, rendered
from services.cli.key_options import KeyOptions, duration_seconds
from services.cli.option_group import with_options
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.cli.table import Column, print_table
from services.gateway.tenancy import keys, usage
from services.gateway.tenancy.key import Change, Key, Replication
from services.gateway.tenancy.prices import Currency, last_currency
from services.gateway.tenancy.secret import PREFIX

app = typer.Typer(
    help="""Create, list, change, rotate and revoke API keys.

    Also shows their usage, and moves them to another Redis. The URL of Redis is --redis-url, else VILIX_REDIS_URL, else
    the one of the running local stack.

    Examples:
      vilix keys create --name shop --rpm 60 --tpm 100000 --concurrency 5
      vilix keys set shop --daily-tokens 2000000 --tpm none
      vilix keys usage shop --by model
      vilix keys revoke shop
    """,
    no_args_is_help=True,
)

_COUNTERS: Final = {"requests": 0, "prompt": 0, "output": 0, "cached": 1, "reasoning": 2}
"""The titles of `usage.TOKEN_COUNTERS`, and their ranks."""
NameOrId = Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name or id, never the key itself.")]


@app.command()
@with_options(KeyOptions)
def create(
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="The name of the key, which is not secret.")],
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


app.command("list")(key_list.list_keys)


@app.command()
def show(
    name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR, as_json: AsJson = False
) -> None:
    """Show the record of a key, without the key itself.

    Examples:
      vilix keys show shop
      vilix keys show shop --json
    """
    _reject_secret(name_or_id)
    key = run(redis_url, state_dir, lambda redis: keys.get(redis, name_or_id))
    if as_json:
        print_json(rendered(key))
        return
    fields = {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "created": key_list.moment(key.created),
        "expires": key_list.moment(key.expires) or "never",
        "revoked": key_list.moment(key.revoked),
        "tier": key.tier or "",
        "models": "all" if key.models is None else ", ".join(sorted(key.models)),
        "limits": describe_limits(key),
    }
    for name, text in fields.items():
        if text:
            print(f"{name:8} {text}")


@app.command("set")
@with_options(KeyOptions)
def set_limits(
    name_or_id: NameOrId,
    *,
    options: KeyOptions,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
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
    if as_json:
        print_json(rendered(key))
    else:
        print(f"Changed {key.id} ({key.name}): {describe_limits(key)}.")


@app.command()
def rotate(
    name_or_id: NameOrId,
    grace: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the older key stays valid, for example 24h or 0h.")
    ] = "24h",
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
def revoke(
    name_or_id: NameOrId, redis_url: RedisUrl = None, state_dir: StateDir = RUN_DIR, as_json: AsJson = False
) -> None:
    """Revoke a key. Requests with it are rejected from now on.

    Examples:
      vilix keys revoke shop
    """
    _reject_secret(name_or_id)
    key, replication = run(redis_url, state_dir, lambda redis: keys.revoke(redis, name_or_id))
    if as_json:
        print_json({"id": key.id, "name": key.name, **asdict(replication)})
    else:
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
        print_json(asdict(result))
    else:
        print(f"Rewrote {result.rewritten} of {result.keys} records.")


@app.command("usage")
def show_usage(
    name_or_id: NameOrId,
    *,
    by: Annotated[Literal["model", "day"], typer.Option(metavar="model|day", help="Sum by model or by day.")] = "day",
    days: Annotated[int, typer.Option(metavar="N", min=1, max=400, help="The number of days, today included.")] = 30,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the usage of a key by model or by day (UTC). A revoked key is found by its id.

    `prompt`, `output`, `cached` and `reasoning` are tokens; cached ones are part of the prompt, and those of the
    reasoning part of the output. `cost` is there if models have prices; with --json it is in the smallest unit of the
    currency. A narrow terminal shows fewer columns; --json has all of them.

    Examples:
      vilix keys usage shop
      vilix keys usage shop --by model --days 7 --json
    """
    _reject_secret(name_or_id)

    async def read(redis: Any) -> tuple[list[usage.Usage], Currency | None]:
        key = await keys.get(redis, name_or_id)
        used = await usage.of_days(redis, key, last=datetime.now(UTC).date(), days=days)
        return used, await last_currency(redis)

    used, currency = run(redis_url, state_dir, read)
    rows = usage.summed(used, by=by)
    if as_json:
        print_json([{by: name, **_with_unit(counts, currency)} for name, counts in rows.items()])
        return
    columns = [Column(by), *(Column(title, rank, "right") for title, rank in _COUNTERS.items())]
    texts = [[name, *(f"{getattr(counts, each):,}" for each in usage.TOKEN_COUNTERS)] for name, counts in rows.items()]
    if any(counts.cost is not None for counts in rows.values()):
        columns.append(Column("cost", justify="right"))
        for text, counts in zip(texts, rows.values(), strict=True):
            text.append(_money(counts.cost or 0, currency))
    print_table(columns, texts, empty=f"This key has no usage in the last {days} days.")


def _with_unit(counts: usage.Counts, currency: Currency | None) -> dict[str, Any]:
    """Return counters for JSON, with the unit of a cost as in receipts."""
    unit = {} if counts.cost is None or currency is None else asdict(currency)
    return {**counts.numbers(), **unit}


def _money(units: int, currency: Currency | None) -> str:
    """Return an amount; in units if no gateway has noted its prices."""
    return f"{units:,}" if currency is None else currency.text(units)


app.command()(declared_keys.draw)
app.command()(declared_keys.apply)
app.command("export")(key_transfer.export_keys)
app.command("import")(key_transfer.import_keys)


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
        print_json({"key": secret, **rendered(key)})
    else:
        print(secret)
        print(f"{note} {key.id} ({key.name}): {describe_limits(key)}.", file=sys.stderr)
        print("Keep it safe: it cannot be shown again.", file=sys.stderr)


def _reject_secret(argument: str) -> None:
    if argument.startswith(PREFIX):
        fail(
            "that is a key itself, which every user of this machine could read in the process list; "
            "give its name or id instead (vilix keys list). Revoke it if it was shown to others"
        )
