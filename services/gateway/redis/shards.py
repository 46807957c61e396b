"""The shards of what Redis holds about keys: on a cluster, everything with one hash tag is on one node."""

from __future__ import annotations

from typing import Final

SHARDS: Final = 64


def shard_name(number: int) -> str:
    """Return the hash tag of a shard: s00 to s63."""
    return f"s{number:02}"
