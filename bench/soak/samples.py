"""Samples of the processes of a stack and of its Redis keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.asyncio import Redis

_KIND = re.compile(r"vilix:(?:\{[^}]*\}:)?([^:]+)")


@dataclass(frozen=True)
class Sample:
    """The figures of one process at one time."""

    rss: int
    private: int | None
    """Private memory by smaps_rollup; None where it is not readable."""
    descriptors: int
    threads: int


def processes(state_dir: Path) -> dict[int, str]:
    """The names of the stack's processes by process id: the supervisor, its programs and their descendants."""
    state = json.loads((state_dir / "state.json").read_text())
    names = {int(state["pid"]): "supervisor"}
    names.update({int(pid): name for name, pid in state["pids"].items()})
    for root, name in list(names.items()):
        if name == "supervisor":
            continue
        for child in psutil.Process(root).children(recursive=True):
            names.setdefault(child.pid, f"{name} > {child.name()} {child.pid}")
    return names


def sample(pid: int) -> Sample:
    """Read the figures of a process; raise psutil.NoSuchProcess when it ended."""
    process = psutil.Process(pid)
    return Sample(process.memory_info().rss, _private(pid), process.num_fds(), process.num_threads())


def _private(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def redis_kinds(redis: Redis) -> tuple[Counter[str], Counter[str]]:
    """The numbers of Redis keys by kind: those without an expiry, and those with one."""
    lasting: Counter[str] = Counter()
    expiring: Counter[str] = Counter()
    async for name in redis.scan_iter(count=1000):
        match = _KIND.match(name)
        remaining = await redis.ttl(name)
        if remaining != -2:  # it ended meanwhile
            (lasting if remaining == -1 else expiring)[match[1] if match else "other"] += 1
    return lasting, expiring
