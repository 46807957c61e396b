"""The memory, connections and rejections of a gateway."""

from __future__ import annotations

import psutil

from tests.faults.process import Process
from tests.faults.system import System


def memory_of(process: Process) -> int:
    """Return the resident memory of a process in bytes."""
    return int(psutil.Process(process.pid).memory_info().rss)


async def rejections(system: System, cause: str) -> float:
    """Return how many connections the gateway has rejected or closed for a cause."""
    return (await system.gateway.metrics())[f'vilix_http_connections_rejected_total{{cause="{cause}"}}']


async def has_connections(process: Process, count: int = 0, at_most: int | None = None) -> bool:
    """Return whether a gateway has `count` connections, or at most `at_most`."""
    connections = await process.metric("vilix_http_connections")
    return connections <= at_most if at_most is not None else connections == count
