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

from services.gateway.redis.connection import connect, disconnect
from services.gateway.redis.rejections import rejection_of

T = TypeVar("T")
SECONDS = 5.0
RedisUrl = Annotated[str | None, typer.Option(help="The URL of Redis, as in VILIX_REDIS_URL, but without a password.")]
StateDir = Annotated[Path, typer.Option(help="The directory of the local stack's state.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(redis_url: str | None, state_dir: Path, action: Callable[[Redis], Awaitable[T]]) -> T:
    """Call `action` with a connection and return its result. A failure ends the command with one line."""
    if redis_url and urlsplit(redis_url).password:
        fail("every user of this machine could read the password in --redis-url; set VILIX_REDIS_URL instead")
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
        fail(f"{'.'.join(str(part) for part in problem['loc'])} is {problem['input']!r}: {problem['msg']}")
    except (LookupError, ValueError) as error:
        fail(str(error.args[0]))
    except (RedisError, OSError) as error:
        cause = rejection_of(error)
        what = "does not answer" if cause is None else f"rejects writes ({cause})"
        fail(f"Redis at {_without_password(url)} {what}: {error}")


def fail(message: str) -> NoReturn:
    """Print an error message and exit with 1."""
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
