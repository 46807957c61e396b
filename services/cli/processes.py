"""The memory and processor time of running processes, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessUse:
    """The memory and processor time of a process and its descendants."""

    memory_bytes: int
    """Resident memory; pages that several processes share count once for each."""
    cpu_seconds: float


def use_of_sessions() -> dict[int, ProcessUse]:
    """Return what the processes of each session use together, by the session's id.

    Each process of a stack leads a session of its own, which also has its descendants.
    """
    uses: dict[int, ProcessUse] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # The name, which is in parentheses, may contain any character.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            session, memory = int(fields[3]), int(fields[21]) * _PAGE_BYTES
            seconds = (int(fields[11]) + int(fields[12])) / _TICKS
            before = uses.get(session, ProcessUse(0, 0.0))
            uses[session] = ProcessUse(before.memory_bytes + memory, before.cpu_seconds + seconds)
    return uses
