"""Reads the prefixes of texts from a model directory that sentence-transformers has written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.embeddings.catalog import PromptsSpec
from services.worker.triton_kit.checkpoint_file import read_object

_PASSAGE_NAMES: Final = ("passage", "document")


def prompts(directory: Path) -> PromptsSpec:
    """Return the prefixes of queries and passages. Raises OSError, and ValueError for an invalid file."""
    path = directory / "config_sentence_transformers.json"
    named = read_object(path, optional=True).get("prompts") or {}
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise ValueError(f"{path}: prompts must be texts by name")
    passage = next((named[name] for name in _PASSAGE_NAMES if name in named), "")
    return PromptsSpec(query=named.get("query", ""), passage=passage)
