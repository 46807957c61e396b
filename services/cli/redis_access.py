"""Connect commands to Redis.

Secrets are never command-line arguments, because every user of a machine can read the arguments of its processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.gateway.redis.redis_connection import connect, disconnect
from services.gateway.redis.redis_rejection import rejection_of

T = TypeVar("T")
SECONDS = 5.0
RedisUrl = Annotated[
    str | None, typer.Option(help="The Redis with the keys, as in VILIX_REDIS_URL; without a password.")
]
StateDir = Annotated[Path, typer.Option(help="Where the local stack keeps its state.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(redis_url: str | None, state_dir: Path, action: Callable[[Redis], Awaitable[T]]) -> T:
    """What `action` returns. Ends the command with one line when it cannot be done."""
    if redis_url and urlsplit(redis_url).password:
        fail(
            "the password in --redis-url could be read by every user of this machine; put the URL into VILIX_REDIS_URL"
        )
    url = redis_url or os.environ.get("VILIX_REDIS_URL") or _url_of_stack(state_dir)

    async def connected() -> T:
        redis = connect(url, timeout=SECONDS)
        try:
            return await action(redis)
        finally:
            await disconnect(redis)

    try:
        return asyncio.run(connected())
    except ValidationError as error:
        problem = error.errors()[0]
        fail(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}, and not {problem['input']!r}")
    except (LookupError, ValueError) as error:
        fail(str(error.args[0]))
    except (RedisError, OSError) as error:
        cause = rejection_of(error)
        what = "does not answer" if cause is None else f"refuses writes ({cause})"
        fail(f"Redis at {_without_password(url)} {what}: {error}")


def fail(message: str) -> NoReturn:
    """End the command with 1, and say why."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)


def _url_of_stack(state_dir: Path) -> str:
    path = state_dir / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        return str(state["redis_url"])
    except (OSError, ValueError, KeyError):
        fail(
            f"the URL of Redis is not known: {path} does not exist; start the stack (make run), or set --redis-url or "
            "VILIX_REDIS_URL"
        )


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
