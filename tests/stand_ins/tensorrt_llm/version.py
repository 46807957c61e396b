from __future__ import annotations

import re
from pathlib import Path

_FILE = Path(__file__).with_name("VERSION")
VERSION = _FILE.read_text().strip() if _FILE.exists() else "1.2.1"


def since(version: str) -> bool:
    """Return whether this is `version` or newer."""
    return _key(VERSION) >= _key(version)


def _key(version: str) -> tuple[int, ...]:
    major, minor, patch, candidate = re.match(r"(\d+)\.(\d+)\.(\d+)(?:rc(\d+))?", version).groups()
    return int(major), int(minor), int(patch), 999 if candidate is None else int(candidate)
