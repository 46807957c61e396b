"""Compares versions of TensorRT-LLM, whose behaviour changes between release candidates."""

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


def _number(version: str, *, final: float) -> tuple[float, ...]:
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is no version as in 1.2.1 or 1.3.0rc24")
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), final if candidate is None else int(candidate)
