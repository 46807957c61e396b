"""Compares versions of an engine's library, whose behaviour changes between release candidates."""

from __future__ import annotations

import math
import re
from typing import Final

_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:rc(\d+))?")


def is_version(text: str) -> bool:
    """Return whether `text` is a whole version, as in 1.3 or 1.3.0rc24."""
    return _VERSION.fullmatch(text) is not None


def at_least(version: str, least: str) -> bool:
    """Return whether `version` is `least` or newer. Release candidates of `least` count as it."""
    return _number(version, final=math.inf) >= _number(least, final=0)


def reject_older(library: str, version: str, requires: str) -> None:
    """Raise ValueError unless the version is in `requires`, as in `>=1.3`; candidates of a release count as it.

    An empty `requires` includes every version.
    """
    if not requires:
        return
    least = requires.removeprefix(">=")
    if least == requires or not is_version(least):
        raise ValueError(f"requires={requires!r}: expected a version as in >=1.3")
    if not at_least(version, least):
        raise ValueError(
            f"this model needs {library} {least} or newer, and {version} is installed; use an image that has it"
        )


def _number(version: str, *, final: float) -> tuple[float, ...]:
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is no version as in 1.2.1 or 1.3.0rc24")
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), final if candidate is None else int(candidate)
