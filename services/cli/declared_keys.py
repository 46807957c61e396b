"""`vilix keys draw` and `vilix keys apply`: keys that are declared in a file, such as the values of the chart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.gateway.redis.shards import SHARDS, shard_name
from services.gateway.tenancy import declared_keys
from services.gateway.tenancy.secret import digest, random_text
from services.gateway.tenancy.secret import draw as draw_secret


def draw(as_json: AsJson = False) -> None:
    """Draw a key and print it, with its digest for `vilix keys apply`. Redis is not needed.

    Examples:
      vilix keys draw
      vilix keys draw --json
    """
    shard = shard_name(int(digest(random_text(12))[:2], 16) % SHARDS)
    secret = draw_secret(shard)
    if as_json:
        print_json({"key": secret, "digest": digest(secret)})
    else:
        print(secret)
        print(f"digest: {digest(secret)}", file=sys.stderr)


def apply(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A YAML file: `keys:` is a list of name, digest, owner, limits …")
    ],
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Create the keys of a file, and change those that exist to what it says. Keys that it does not name stay.

    Examples:
      vilix keys apply keys.yaml
    """
    try:
        declared = declared_keys.read(file)
    except (OSError, ValueError) as error:
        fail(str(error))
    results = run(redis_url, state_dir, lambda redis: declared_keys.apply(redis, declared))
    if as_json:
        print_json([{"id": key.id, "name": key.name, "result": outcome} for key, outcome in results])
        return
    for key, outcome in results:
        print(f"{key.id} ({key.name}): {outcome}")
