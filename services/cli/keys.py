"""`vilix keys`: API keys."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from services.gateway import keys

app = typer.Typer(
    help="""API keys: make, list and revoke them.

    Redis is found by --redis-url, then VILIX_REDIS_URL, then the state of the running local stack.

    Examples:
      vilix keys create --name shop --rpm 60
      vilix keys list
      vilix keys revoke shop
    """,
    no_args_is_help=True,
)

T = TypeVar("T")
RedisUrl = Annotated[str | None, typer.Option(help="redis://HOST:PORT/DB of the Redis with the keys.")]
StateDir = Annotated[Path, typer.Option(help="Where the local stack keeps its state.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="A name to find the key by; not secret.")],
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute; no limit if left out.")] = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = Path(".run"),
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is stored.

    Examples:
      vilix keys create --name shop
      vilix keys create --name shop --rpm 60 --json
    """
    _refuse_secret(name)
    key, api_key = _run(redis_url, state_dir, lambda redis: keys.create(redis, name=name, rpm=rpm))
    if as_json:
        print(json.dumps({"key": api_key, **asdict(key)}, ensure_ascii=False))
    else:
        print(api_key)
        print(f"Made {key.id} ({key.name}). Keep it safe: it cannot be shown again.", file=sys.stderr)


@app.command("list")
def list_keys(redis_url: RedisUrl = None, state_dir: StateDir = Path(".run"), as_json: AsJson = False) -> None:
    """List the keys that were not revoked, oldest first.

    Examples:
      vilix keys list
      vilix keys list --json
    """
    found = _run(redis_url, state_dir, keys.list_all)
    if as_json:
        print(json.dumps([asdict(key) for key in found], ensure_ascii=False))
        return
    table = Table("id", "name", "created", "requests per minute", box=None)
    for key in found:
        created = datetime.fromtimestamp(key.created).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(key.id, key.name, created, str(key.rpm or "no limit"))
    Console().print(table)


@app.command()
def revoke(
    name_or_id: Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name or id, never the key itself.")],
    redis_url: RedisUrl = None,
    state_dir: StateDir = Path(".run"),
) -> None:
    """Revoke a key. It is refused from now on.

    Examples:
      vilix keys revoke shop
    """
    _refuse_secret(name_or_id)
    key = _run(redis_url, state_dir, lambda redis: keys.revoke(redis, name_or_id))
    print(f"Revoked {key.id} ({key.name}).")


def _refuse_secret(argument: str) -> None:
    if argument.startswith(keys.PREFIX):
        _fail(
            "that is a key itself, which every user of this machine could read in the process list; "
            "give its name or id instead (vilix keys list). Revoke it if it was shown to others"
        )


def _run(redis_url: str | None, state_dir: Path, action: Callable[[Redis], Awaitable[T]]) -> T:
    url = redis_url or os.environ.get("VILIX_REDIS_URL") or _url_of_stack(state_dir)

    async def run() -> T:
        async with Redis.from_url(url, decode_responses=True, socket_connect_timeout=5, socket_timeout=5) as redis:
            return await action(redis)

    try:
        return asyncio.run(run())
    except (LookupError, ValueError) as error:
        _fail(str(error.args[0]))
    except (RedisError, OSError) as error:
        _fail(f"Redis at {_without_password(url)} does not answer: {error}")


def _url_of_stack(state_dir: Path) -> str:
    path = state_dir / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        return str(state["redis_url"])
    except (OSError, ValueError, KeyError):
        _fail(
            f"no Redis is known: {path} is not there; start the stack (make run), or give --redis-url or VILIX_REDIS_URL"
        )


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)
