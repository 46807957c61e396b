"""The local stack as other commands find it: its state directory, its addresses and its credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli.failure import fail

RUN_DIR: Final = Path(".run")
StateDir = Annotated[Path, typer.Option(metavar="DIR", help="The directory of the local stack's state.")]


def read_state(state_dir: Path) -> dict[str, Any] | None:
    """Return the contents of `state.json`, or None if no stack has written it."""
    try:
        state: dict[str, Any] = json.loads((state_dir / "state.json").read_text())
    except (OSError, ValueError):
        return None
    return state


def require_state(state_dir: Path, *, otherwise: str) -> dict[str, Any]:
    """Return the contents of `state.json`. Without a stack, end the command; `otherwise` says what else helps."""
    state = read_state(state_dir)
    if state is None:
        fail(f"no stack is running in {state_dir}; start one with make run or vilix up, or {otherwise}")
    return state
