"""`vilix request`: the receipt of a request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.cli.table import Column, print_table, printable
from services.gateway.tenancy import receipts
from services.gateway.tenancy.key import Key

_COLUMNS: Final = (Column("field"), Column("value", folds=True))


def request(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The id: the response's header x-request-id.")],
    *,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The name or id of its key; of a revoked one its id. Default: any valid key."
        ),
    ] = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the receipt of a request of the last day.

    It has the stages, tokens, cost, worker, engine and outcome, and no content. Times are milliseconds since the
    arrival of the request; those in the worker are durations. The URL of Redis is --redis-url, else VILIX_REDIS_URL,
    else the one of the running local stack.

    Examples:
      vilix request req-1f2e3d4c5b6a798012345678
      vilix request req-1f2e3d4c5b6a798012345678 --json
    """

    async def find(redis: Any) -> tuple[Key, dict[str, Any]] | None:
        return await receipts.find_of_any(redis, request_id, name_or_id=key)

    try:
        found = run(redis_url, state_dir, find)
    except receipts.SharedIdError as error:
        names = ", ".join(f"{owner.name} ({owner.id})" for owner in error.owners)
        fail(f"several keys have made a request {request_id!r}: choose one with --key: {printable(names)}")
    if found is None:
        fail(f"there is no receipt of a request {request_id!r}; the latest receipts of each key are kept for a day")
    owner, receipt = found
    if as_json:
        print_json({"key": owner.id, "key_name": owner.name, "receipt": receipt})
        return
    rows = [("key", f"{owner.name} ({owner.id})"), *_rows(receipt)]
    print_table(_COLUMNS, rows, empty="")


def _rows(receipt: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in receipt.items():
        if name == "created":
            yield name, datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", str(part)) for inner, part in value.items())
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
