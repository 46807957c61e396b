"""Chooses the model that a stack serves if none is named, by the cores and the memory of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.stack.cores import read_text, usable_cores

LARGER: Final = "qwen2.5-coder-1.5b"
SMALLER: Final = "qwen2.5-coder-0.5b"
CORES: Final = 4
"""The physical cores that the larger model needs."""
FREE_GB: Final = 8.0
"""The free memory that the larger model needs, in 10⁹ bytes."""
_ROOT: Final = Path("/")


def choose(root: Path = _ROOT) -> tuple[str, str]:
    """Return the id of the model, and a sentence with the reason.

    `root` is the directory in which `proc` and `sys` are.
    """
    cores, free_gb = usable_cores(root), free_memory(root) / 1e9
    is_large = cores >= CORES and free_gb >= FREE_GB
    has = f"this machine has {cores} physical core{'' if cores == 1 else 's'} and {free_gb:.1f} GB of free memory"
    needs = f"{LARGER} needs {CORES} and {FREE_GB:g} GB"
    return (LARGER, f"{has}, and {needs}") if is_large else (SMALLER, f"{has}; {needs}")


def free_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that programs can get without swapping, within the limit of a container.

    The cache of files counts as free, because the kernel gives it up when programs need memory.
    """
    available = _numbers(root / "proc/meminfo").get("MemAvailable:", 0) * 1024
    # The formats: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    group = root / "sys/fs/cgroup"
    limit, used = read_text(group / "memory.max"), read_text(group / "memory.current")
    if not (limit.isdecimal() and used.isdecimal()):
        return available
    statistics = _numbers(group / "memory.stat")
    files = statistics.get("active_file", 0) + statistics.get("inactive_file", 0)
    return max(0, min(available, int(limit) - int(used) + files))


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number in each line."""
    lines = (line.split() for line in read_text(path).splitlines())
    return {fields[0]: int(fields[1]) for fields in lines if len(fields) > 1 and fields[1].isdecimal()}
