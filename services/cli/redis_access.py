"""Connect commands to Redis.

Secrets are never command-line arguments, because every user of a machine can read the arguments of its processes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.cli.failure import fail
from services.cli.stack_state import require_state
from services.gateway.redis.connection import connect, disconnect
from services.gateway.redis.rejections import rejection_of

T = TypeVar("T")
SECONDS = 5.0
RedisUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="The URL of Redis, as in VILIX_REDIS_URL, but without a password.")
]


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


def _url_of_stack(state_dir: Path) -> str:
    return str(require_state(state_dir, otherwise="set --redis-url or VILIX_REDIS_URL")["redis_url"])


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
