"""`state.json`: where a running stack's processes are, for commands and people that look for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class StateFile:
    """Keeps the file up to date with the process ids; a `supervisor.Watcher`."""

    def __init__(self, path: Path, facts: Mapping[str, object]) -> None:
        """Writes `facts` and the process ids to `path`."""
        self._path = path
        self._facts = facts
        self._pids: dict[str, int] = {}

    def remove(self) -> None:
        """Remove the file: nothing runs any more."""
        self._path.unlink(missing_ok=True)

    def starting(self, name: str, pid: int) -> None:
        """Note the process id."""
        self._pids[name] = pid
        # Written aside and renamed, so that a reader never sees half a file.
        draft = self._path.with_suffix(".tmp")
        # It names the password of the database: private before there is anything in it.
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_text(json.dumps({**self._facts, "pids": self._pids}, indent=2) + "\n")
        draft.replace(self._path)

    def ready(self, name: str, seconds: float) -> None:
        """Nothing to note."""

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """Nothing to note: the next start overwrites the id."""

    def unhealthy(self, name: str, why: str) -> None:
        """Nothing to note."""

    def stopping(self, name: str) -> None:
        """Nothing to note."""
