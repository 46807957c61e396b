"""The results of all parts of the benchmark in one JSON file, of which each run replaces its own parts."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.tokens.part import Rows

FILE: Final = "tokens.json"


class Results:
    """The file in a directory, which is read at the beginning, if it exists."""

    def __init__(self, directory: Path) -> None:
        """Read `directory`/tokens.json."""
        self._path: Final = directory / FILE
        self._parts: Final[dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __contains__(self, part: str) -> bool:
        """Return whether a part was measured."""
        return part in self._parts

    def rows(self, part: str) -> Rows:
        """Return the rounds of a part."""
        rounds: Rows = self._parts[part]["rounds"]
        return rounds

    def conditions(self, part: str) -> str:
        """Return when and on what a part was measured, as a phrase."""
        about = self._parts[part]
        return (
            f"{about['when'][:10]} with {about['cores']} cores ({about['processor']}) and Python {about['python']}; "
            f"the load average was {about['load_average']:.1f} before"
        )

    def replace(self, part: str, rows: Rows, *, load_average: float) -> None:
        """Replace the rounds of a part, and write the file. `load_average` is that of the minute before."""
        self._parts[part] = {
            "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
            "load_average": load_average,
            "cores": len(os.sched_getaffinity(0)),
            "processor": processor(),
            "python": platform.python_version(),
            "rounds": rows,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._parts, indent=1) + "\n")


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
