"""How deeply a JSON value is nested."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 128
"""Of values that are only written into prompts."""


def depth_of(value: Any) -> int:
    """How many objects and lists are inside one another. Without recursion, which a deep value would break off."""
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
