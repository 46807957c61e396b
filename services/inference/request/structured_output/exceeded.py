"""Failures of structured outputs that exceed a limit."""

from __future__ import annotations

import json
import re
from typing import Final

from services.runtime.failure import Failure, invalid

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,63}")


def check_at_most(field: str, path: str, value: int, limit: int, *, unit: str) -> None:
    """Raise Failure if `value` at `path` in `field` exceeds `limit`. `unit` follows the number, such as ` entries`."""
    if value > limit:
        raise exceeded(field, path, value, limit, unit=unit)


def exceeded(field: str, where: str, value: object, limit: int, *, unit: str = "") -> Failure:
    """Return the failure of a `value` that exceeds `limit`, `where` in `field` (empty: all of it)."""
    if not where:
        return invalid(field, f"{field} has {value}{unit}; at most {limit} are allowed", value=value, limit=limit)
    message = f"{field} has {value}{unit} at {where}; at most {limit} are allowed"
    return invalid(field, message, value=value, limit=limit)


def path_step(key: str) -> str:
    """Return the step of a JSON path to the entry `key` of an object."""
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key[:64], ensure_ascii=False)}]"


def rendered(value: float) -> str:
    """Return a number as text of limited length."""
    return (
        str(value) if isinstance(value, int) and abs(value) < 10**40 else f"{float(min(max(value, -1e308), 1e308)):g}"
    )
