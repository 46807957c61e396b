"""Reads the files of a model directory, as Hugging Face lays it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Return the text of a file. Raises OSError: FileNotFoundError for a file that does not exist."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a model directory needs it")
    return path.read_text()


def read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one for an `optional` file that does not exist.

    Raises OSError as `read_text` does, and ValueError, which names the file, for one that holds no JSON object.
    """
    if optional and not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no JSON object")  # noqa: TRY004  # the error is about the content of a file
    return value
