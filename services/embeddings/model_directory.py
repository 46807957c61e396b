"""What a model directory says about its texts, in the files that sentence-transformers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from services.embeddings.catalog import PromptsSpec

_PASSAGE_NAMES: Final = ("passage", "document")


def prompts(directory: Path) -> PromptsSpec:
    """What is written before queries and passages. Raises ValueError for a file that is not understood."""
    path = directory / "config_sentence_transformers.json"
    named = _read(path).get("prompts") or {}
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise ValueError(f"{path}: prompts must be texts by name")
    passage = next((named[name] for name in _PASSAGE_NAMES if name in named), "")
    return PromptsSpec(query=named.get("query", ""), passage=passage)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004  # the file is wrong, not our call
    return value
