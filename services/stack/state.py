"""`state.json`: the addresses, processes and credentials of a running stack, for commands and users."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class ProcessState:
    """One process of the stack."""

    pid: int
    state: str
    """`starting`, `ready`, `restarting`, `unhealthy` or `stopping`."""
    restarts: int = 0
    """The number of times that the process was started again."""
    started: float = field(default_factory=time.time)
    """The time of its last start, in seconds since 1970."""


class StateFile:
    """The file of a stack, which is updated with each change of a process; a `supervisor.Watcher`."""

    def __init__(self, path: Path, facts: Mapping[str, object]) -> None:
        """Write `facts` and the processes to `path`."""
        self._path = path
        self._facts = facts
        self._is_ready = False
        self._processes: dict[str, ProcessState] = {}

    def remove(self) -> None:
        """Remove the file after all processes have stopped."""
        self._path.unlink(missing_ok=True)

    def all_ready(self, facts: Mapping[str, object]) -> None:
        """Record that the whole stack has started, and further facts about it."""
        self._is_ready = True
        self._facts = {**self._facts, **facts}
        self._write()

    def starting(self, name: str, pid: int) -> None:
        """Record the process id."""
        before = self._processes.get(name)
        self._processes[name] = ProcessState(pid, "starting", 0 if before is None else before.restarts + 1)
        self._write()

    def ready(self, name: str, seconds: float) -> None:
        """Record that the process is ready."""
        self._note(name, "ready")

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """Record that the process is about to be started again. The next start overwrites its id."""
        self._note(name, "restarting")

    def unhealthy(self, name: str, why: str) -> None:
        """Record that the process cannot continue."""
        self._note(name, "unhealthy")

    def stopping(self, name: str) -> None:
        """Record that the process was asked to stop."""
        self._note(name, "stopping")

    def _note(self, name: str, state: str) -> None:
        if name in self._processes:
            self._processes[name].state = state
            self._write()

    def _write(self) -> None:
        # Written to another file and renamed, so that readers never see half a file.
        draft = self._path.with_suffix(".tmp")
        # The file is made private before it has any content, because it contains the database's password.
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        state = {
            **self._facts,
            "ready": self._is_ready,
            "pids": {name: process.pid for name, process in self._processes.items()},
            "processes": {name: asdict(process) for name, process in self._processes.items()},
        }
        draft.write_text(json.dumps(state, indent=2) + "\n")
        draft.replace(self._path)
