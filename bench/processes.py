"""The processor time and memory of running processes, from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process and its running children."""
    return sum(_own_cpu_seconds(process.pid) for process in _family(pid))


def memory_bytes(pid: int) -> tuple[int, int]:
    """Return the memory of a process and its children: the sums of RSS and of PSS, which divides shared pages."""
    details = [process.memory_full_info() for process in _family(pid)]
    return sum(info.rss for info in details), sum(info.pss for info in details)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _own_cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_SECONDS
