"""A terminal that does not echo what is typed, so that it does not end up within an answer."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOCAL_MODES: Final = 3
"""The index of the local modes in what `tcgetattr` returns."""


@contextmanager
def without_echo() -> Iterator[None]:
    """Echo nothing until the context ends. What is typed is kept for the next prompt; Ctrl-C works as always."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[_LOCAL_MODES] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
