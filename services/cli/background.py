"""Starts a stack in the background, and shows its start until it is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import typer

from services.cli.failure import fail
from services.cli.stack_state import read_state
from services.stack import private_files
from services.stack.exclusive import running_pid

LOG: Final = "up.log"
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 60.0
_ERROR: Final = "error: "


def start(arguments: Sequence[str], state_dir: Path, show: Callable[[str], None]) -> float:
    """Run `vilix up` with `arguments` in the background until its stack is ready. Return the seconds that it took.

    `show` gets each line about the start. Ctrl-C stops the stack again. If it cannot start, the command ends with the
    line that says why.

    Raises StackError for a state directory that cannot be used.
    """
    began = time.monotonic()
    private_files.make_private(state_dir)
    if (pid := running_pid(state_dir)) is not None:
        fail(f"a stack is already running in {state_dir} (process {pid}); stop it with vilix down")
    path = state_dir / "logs" / LOG
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Without the terminal, so that neither Ctrl-C nor the end of the session reaches it.
            start_new_session=True,
        )
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            _follow(process, lines.readline, state_dir, show)
    except KeyboardInterrupt:
        process.terminate()
        process.wait(_STOP_SECONDS)
        raise typer.Exit(130) from None
    return time.monotonic() - began


def _follow(
    process: subprocess.Popen[bytes], read_line: Callable[[], str], state_dir: Path, show: Callable[[str], None]
) -> None:
    beginning = ""
    while True:
        has_ended, is_ready = process.poll() is not None, _is_ready(state_dir, process.pid)
        while text := read_line():
            line = beginning + text
            beginning = "" if line.endswith("\n") else line
            if line.startswith(_ERROR):
                fail(line.removeprefix(_ERROR).rstrip("\n"))
            if line.endswith("\n"):
                show(line.rstrip("\n"))
        if is_ready:
            return
        if has_ended:
            fail(f"the stack ended with exit code {process.returncode} before it was ready (log: logs/{LOG})")
        time.sleep(_POLL_SECONDS)


def _is_ready(state_dir: Path, pid: int) -> bool:
    state = read_state(state_dir)
    return state is not None and state.get("pid") == pid and bool(state.get("ready"))
