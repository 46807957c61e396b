"""Ends a command with one line about what went wrong."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Print an error message and exit with 1."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)
