"""The processors that this machine, or the container on it, gives to an engine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")


def engine_threads(root: Path = _ROOT) -> int:
    """Return the number of threads of one engine: one per physical core, and one processor is left for the rest.

    Measured on two cores with SmolLM2-135M: on an idle machine, two threads are twice as fast as one. While other
    programs used both cores, one thread generated 15 tokens per second, and two threads 0.3: the threads of llama.cpp
    wait for each other at every operation without giving up their processors, so that a thread whose processor was
    taken away delays all. Two threads on the same core share its arithmetic units, and gain nothing.

    `root` is the directory in which `sys` is.
    """
    processors = os.sched_getaffinity(0)
    return max(1, min(usable_cores(root), len(processors) - 1))


def usable_cores(root: Path = _ROOT) -> int:
    """Return the number of physical cores that this process may use, by its affinity and the quota of its container.

    `root` is the directory in which `sys` is.
    """
    cores = physical_cores(os.sched_getaffinity(0), root)
    # The format: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    quota, _, period = read_text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period):
        return max(1, min(cores, int(quota) // int(period)))
    return cores


def physical_cores(processors: Iterable[int], root: Path = _ROOT) -> int:
    """Return the number of physical cores to which `processors` belong, according to Linux.

    A processor without information counts as a core. The files are described in
    https://docs.kernel.org/admin-guide/cputopology.html; `root` is the directory in which `sys` is.
    """
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({read_text(root / topology.format(number)) or str(number) for number in processors})


def read_text(path: Path) -> str:
    """Return the text of a file of the kernel; an empty one where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
