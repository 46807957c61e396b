"""`vilix down`: stop the local stack."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.stack_state import RUN_DIR, StateDir
from services.stack.exclusive import running_pid

_POLL_SECONDS: Final = 0.1


def down(
    *,
    timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=1, help="Seconds to wait for running requests before everything is killed."
        ),
    ] = 60,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Stop the stack that runs on this machine.

    Everything is stopped in order, as with Ctrl-C: running requests may end first.

    Examples:
      vilix down
      vilix down --timeout 5
    """
    pid = running_pid(state_dir)
    if pid is not None:
        _stop(pid, signal.SIGTERM)
        if not _has_ended(state_dir, timeout):
            # A second signal kills everything at once.
            _stop(pid, signal.SIGTERM)
            if not _has_ended(state_dir, timeout):
                fail(f"process {pid} does not end; its log is in {state_dir / 'logs'}")
    if as_json:
        print_json({"stopped": pid})
    else:
        print(f"No stack is running in {state_dir}." if pid is None else f"Stopped the stack in {state_dir}.")


def _stop(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        fail(f"the stack (process {pid}) belongs to another user")


def _has_ended(state_dir: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while running_pid(state_dir) is not None:
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True
