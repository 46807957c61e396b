"""Sample the memory, descriptors and threads of a running stack's processes each second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from redis.asyncio import Redis

INTERVAL_SECONDS: Final = 1.0
_RESIDENT: Final = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_KEY_ID: Final = re.compile(r"key_[0-9A-Za-z]{12}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement of one process."""

    seconds: float
    """The time since the start."""
    megabytes: float
    """The resident memory without file-backed pages."""
    descriptors: int
    threads: int


@dataclass
class Series:
    """The samples of one process."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    def since(self, seconds: float) -> list[Sample]:
        """Return the samples from `seconds` on."""
        return [sample for sample in self.samples if sample.seconds >= seconds]


class Sampler:
    """Samples the processes that a stack's state.json names, and their children."""

    def __init__(self, state_file: Path, redis: Redis) -> None:
        """Sample the stack of `state_file`, and the keys of its Redis over the connection `redis`."""
        self.series: dict[int, Series] = {}
        self.redis_keys: list[tuple[float, int]] = []
        """The number of keys in Redis, with the time of each count."""
        self._state_file = state_file
        self._redis = redis
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Sample at a fixed interval until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_SECONDS - self.seconds % INTERVAL_SECONDS)

    async def look(self) -> None:
        """Take one sample of each process and of Redis."""
        for name, process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                with process.oneshot():
                    resident = resident_bytes(process)
                    threads = process.num_threads()
                sample = Sample(self.seconds, resident / 1e6, process.num_fds(), threads)
                self.series.setdefault(process.pid, Series(name, process.pid)).samples.append(sample)
        self.redis_keys.append((self.seconds, int(await self._redis.dbsize())))

    def _processes(self) -> Iterable[tuple[str, psutil.Process]]:
        state: dict[str, Any] = json.loads(self._state_file.read_text())
        for name, pid in {"supervisor": state["pid"], **state["pids"]}.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                yield name, process
                if name == "supervisor":
                    continue
                for child in process.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        yield f"{name}/{_short(child)}", child


def resident_bytes(process: psutil.Process) -> int:
    """Return the resident memory of a process without file-backed pages, which the kernel drops and reads at will.

    On a system without /proc, the result is the whole resident memory.

    Raises:
        psutil.NoSuchProcess: The process has ended.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return int(process.memory_info().rss)
    return sum(1024 * int(kilobytes) for kilobytes in _RESIDENT.findall(status))


def _short(process: psutil.Process) -> str:
    """Return a short name of a child process: a Triton stub, or a module that Python runs."""
    if "triton_python" in process.name():
        return "stub"
    command = process.cmdline()
    return Path(next((part for part in command[1:] if not part.startswith("-")), process.name())).stem


async def keys_by_kind(redis: Redis, ignored: Collection[str]) -> Counter[str]:
    """Count the keys in Redis by the kind in their names, without keys of the API keys with `ignored` ids."""
    counts: Counter[str] = Counter()
    async for name in redis.scan_iter(count=1000):
        text = name.decode() if isinstance(name, bytes) else str(name)
        owner = _KEY_ID.search(text)
        if owner is None or owner[0] not in ignored:
            counts[kind_of(text)] += 1
    return counts


def kind_of(name: str) -> str:
    """Return the kind of a key of Redis: `vilix:{s07}:limits:KEY_ID:settled:REQUEST` has the kind `settled`."""
    parts = re.sub(r"\{s\d\d\}:", "", name).removeprefix("vilix:").split(":")
    if "settled" in parts:
        return "settled"
    return "usage stream" if parts == ["usage"] else parts[0]
