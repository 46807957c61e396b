"""`state.json`: the addresses and process ids of a running stack, for commands and users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class StateFile:
    """The file of a stack, which is updated with each process id; a `supervisor.Watcher`."""

    def __init__(self, path: Path, facts: Mapping[str, object]) -> None:
        """Write `facts` and the process ids to `path`."""
        self._path = path
        self._facts = facts
        self._pids: dict[str, int] = {}

    def remove(self) -> None:
        """Remove the file after all processes have stopped."""
        self._path.unlink(missing_ok=True)

    def starting(self, name: str, pid: int) -> None:
        """Record the process id."""
        self._pids[name] = pid
        # Written to another file and renamed, so that readers never see half a file.
        draft = self._path.with_suffix(".tmp")
        # The file is made private before it has any content, because it contains the database's password.
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_text(json.dumps({**self._facts, "pids": self._pids}, indent=2) + "\n")
        draft.replace(self._path)

    def ready(self, name: str, seconds: float) -> None:
        """Do nothing."""

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """Do nothing: the next start overwrites the process id."""

    def unhealthy(self, name: str, why: str) -> None:
        """Do nothing."""

    def stopping(self, name: str) -> None:
        """Do nothing."""
