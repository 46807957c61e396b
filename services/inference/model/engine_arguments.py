"""Names the arguments that each engine accepts, by `engine_arguments.yaml`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

import yaml

ARGUMENTS: Final[dict[str, dict[str, list[str]]]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
"""The names by engine, and by where the argument is handled: in the `engine` or in its `library`."""


def known_arguments(engine: str) -> frozenset[str]:
    """Return the names of the arguments that an engine accepts."""
    return frozenset().union(*ARGUMENTS[engine].values())


def problem_with(engine: str, argument: str) -> str | None:
    """Return what is wrong with the name of an argument, or None if the engine accepts it."""
    known = known_arguments(engine)
    if argument in known:
        return None
    close = difflib.get_close_matches(argument, known, n=1)
    return "the engine takes no argument of this name" + (f"; is it {close[0]}?" if close else "")
