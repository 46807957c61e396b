"""Compares what a GGUF file says that it is with the catalog entry under whose id it is served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.inference.model.catalog import ModelSpec
from services.worker.triton_kit.checkpoint_file import read_object

FILE: Final = "checkpoint.json"
"""The file of a model directory with the name of a user's own weights."""
_VARIANTS: Final = ("instruct", "gguf")
"""Parts of names that say nothing about the model."""


def name_of(metadata: Mapping[str, Any], source: Path) -> str:
    """Return the name of the weights in `source`: the file's own, and the name of the file."""
    name = metadata.get("general.name")
    return f"{name} ({source.name})" if name else source.name


def write_name(directory: Path, name: str) -> None:
    """Keep the name of a user's own weights in their model directory, for `read_name`."""
    (directory / FILE).write_text(json.dumps({"name": name}, ensure_ascii=False) + "\n")


def read_name(directory: Path) -> str | None:
    """Return the name of a user's own weights; None for the checkpoint of the catalog entry.

    Raises OSError or ValueError if the file is damaged.
    """
    name = read_object(directory / FILE, optional=True).get("name")
    return None if name is None else str(name)


def find_difference(spec: ModelSpec, metadata: Mapping[str, Any], source: Path) -> str | None:
    """Return a sentence that says how the file differs from the entry by name or architecture, or None."""
    own, architecture = name_of(metadata, source), metadata.get("general.architecture")
    expected = spec.checkpoint.rpartition("/")[2]
    has_name = _letters(expected) in _letters(str(metadata.get("general.name") or source.stem))
    if has_name and spec.gguf_architecture in (None, architecture):
        return None
    entry = f"{expected} ({spec.gguf_architecture})" if spec.gguf_architecture else expected
    return (
        f"the file is {own}, architecture {architecture}, and {spec.id} stands for {entry}: "
        "its capabilities and parsers may not fit"
    )


def _letters(name: str) -> str:
    text = "".join(character for character in name.lower() if character.isalnum())
    for variant in _VARIANTS:
        text = text.replace(variant, "")
    return text
