"""`vilix audit`: the changes of keys, aliases, tiers and prices."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from services.cli.failure import fail
from services.cli.json_output import print_json
from services.cli.key_options import duration_seconds
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.cli.table import Column, print_table
from services.gateway.redis import audit_log
from services.gateway.redis.audit_log import AuditEntry

_COLUMNS: Final = (
    Column("time"),
    Column("by", folds=True),
    Column("from", rank=2, folds=True),
    Column("action"),
    Column("of", folds=True),
    Column("before", rank=1, folds=True),
    Column("after", folds=True),
)


def audit(
    *,
    since: Annotated[
        str, typer.Option(metavar="DURATION", help="How far to look back, for example 12h or 30d.")
    ] = "30d",
    subject: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name or id of a key, an alias, tiers or prices. Default: all."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The most entries.")] = 1000,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one object for each entry.")] = False,
) -> None:
    """Show who changed keys, tiers, prices and aliases.

    The latest change comes first. Times are in UTC. Entries are kept for 400 days. The URL of Redis is --redis-url,
    else VILIX_REDIS_URL, else the one of the running local stack.

    Examples:
      vilix audit
      vilix audit --subject shop --since 7d
      vilix audit --since 400d --limit 100000 --json > audit.jsonl
    """
    seconds = duration_seconds(since)
    if seconds is None:
        fail(f"--since is {since!r}; it must be a duration such as 12h, 90m or 30d")
    now = time.time()

    async def read(redis: Any) -> list[AuditEntry]:
        return await audit_log.read(redis, since=now - seconds, until=now + 1, subject=subject, limit=limit)

    entries = run(redis_url, state_dir, read)
    if as_json:
        for entry in entries:
            print_json(entry.model_dump(mode="json"))
        return
    print_table(_COLUMNS, [_row(entry) for entry in entries], empty="Nothing was changed in that time.")


def _row(entry: AuditEntry) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    subject = f"{entry.name} ({entry.subject})" if entry.name else entry.subject
    return moment, entry.actor, entry.address, entry.action, subject, _text(entry.before), _text(entry.after)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
