"""`vilix keys list`: the keys, with their last use and this month's tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from services.cli.json_output import AsJson, print_json
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.cli.table import Column, print_table
from services.gateway.tenancy import key_activity, keys
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_activity import KeyActivity
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.revoked_keys import list_revoked
from services.gateway.tenancy.usage import Counts

_TITLES: Final = {
    "daily_tokens": "tokens/day",
    "monthly_tokens": "tokens/month",
    "daily_cost": "cost/day",
    "weekly_cost": "cost/week",
    "monthly_cost": "cost/month",
}
_COLUMNS: Final = (
    Column("id"),
    Column("name", folds=True),
    Column("owner", rank=4),
    Column("created", rank=5),
    Column("expires", rank=3),
    Column("tier", rank=2),
    Column("last use"),
    Column("month", justify="right"),
    Column("limits", folds=True),
)


def list_keys(
    *,
    revoked: Annotated[
        bool, typer.Option("--revoked", help="List the keys that were revoked in the last 400 days instead.")
    ] = False,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """List the keys that are not revoked, oldest first.

    `last use` is when a request has last ended (UTC), and `month` the tokens of this calendar month, of prompts and
    responses. A narrow terminal shows fewer columns; --json has all of them.

    Examples:
      vilix keys list
      vilix keys list --revoked
      vilix keys list --json
    """
    now = datetime.now(UTC)

    async def read(redis: Any) -> list[tuple[Key, KeyActivity]]:
        listed = await (list_revoked(redis) if revoked else keys.list_all(redis))
        return list(zip(listed, await key_activity.of_keys(redis, listed, today=now.date()), strict=True))

    rows = run(redis_url, state_dir, read)
    if as_json:
        print_json([rendered(key) | _rendered_activity(activity) for key, activity in rows])
        return
    columns = [Column("revoked") if revoked and one.title == "expires" else one for one in _COLUMNS]
    empty = "No key was revoked." if revoked else "There are no keys. Create one: vilix keys create --name NAME"
    print_table(columns, [_row(key, activity, now, revoked=revoked) for key, activity in rows], empty=empty)


def rendered(key: Key) -> dict[str, Any]:
    """Return a key for JSON."""
    return key.model_dump(mode="json") | {"models": None if key.models is None else sorted(key.models)}


def describe_limits(key: Key) -> str:
    """Return the limits of a key and of its models in one line."""
    parts = [part for part in (_limits(key.limits), f"tier {key.tier}" if key.tier else "") if part]
    parts += [f"{model}: {_limits(limits)}" for model, limits in sorted(key.model_limits.items())]
    return "; ".join(parts) or "no limits"


def moment(seconds: int | None) -> str:
    """Return a time in UTC; empty for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _row(key: Key, activity: KeyActivity, now: datetime, *, revoked: bool) -> tuple[str, ...]:
    tokens = activity.month.prompt_tokens + activity.month.completion_tokens
    return (
        key.id,
        key.name,
        key.owner,
        _date(key.created),
        _date(key.revoked if revoked else key.expires),
        key.tier or "",
        _last_use(activity, now),
        f"{tokens:,}" if tokens else "",
        describe_limits(key.model_copy(update={"tier": None})).replace("no limits", "none"),
    )


def _limits(limits: Limits) -> str:
    return ", ".join(f"{_TITLES.get(name, name)} {value:,}" for name, value in limits if value is not None)


def _last_use(activity: KeyActivity, now: datetime) -> str:
    if activity.last_used is None:
        # Gateways of earlier versions count the usage of a month only.
        return "never" if activity.month == Counts() else "this month"
    then = datetime.fromtimestamp(activity.last_used, UTC)
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d")


def _date(seconds: int | None) -> str:
    return moment(seconds)[:10]


def _rendered_activity(activity: KeyActivity) -> dict[str, Any]:
    return {"last_used": activity.last_used, "month": activity.month.numbers()}
