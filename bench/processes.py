"""What running processes have used, from Linux's /proc."""

from __future__ import annotations

import os

import psutil

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living children."""
    return sum(_own_cpu_seconds(process.pid) for process in _family(pid))


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of a process and its children: as each has it (RSS), and with shared pages divided (PSS)."""
    found = [process.memory_full_info() for process in _family(pid)]
    return sum(info.rss for info in found), sum(info.pss for info in found)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _own_cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # a name with spaces is inside the parentheses
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_SECONDS
