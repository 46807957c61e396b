"""Measures how deeply a JSON value is nested."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 128
"""The deepest nesting of values that are only written into prompts."""


def depth_of(value: Any) -> int:
    """Return the nesting depth of objects and lists, without recursion, which would fail for a deep value."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            entry
            for item in level
            if isinstance(item, dict | list)
            for entry in (item.values() if isinstance(item, dict) else item)
            if isinstance(entry, dict | list)
        ]
    return depth
