"""Reads how a model's vectors are computed from a directory that sentence-transformers has written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from services.worker.triton_kit.checkpoint_file import read_object

Pooling = Literal["last", "mean", "first"]
_POOLINGS: Final[dict[str, Pooling]] = {"lasttoken": "last", "mean": "mean", "cls": "first"}
_FLAGS: Final[dict[str, Pooling]] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
}
_UNDERSTOOD: Final = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """The method that computes a vector from the model's hidden states."""

    pooling: Pooling
    """The state of the last token or of the first, or the mean of all states."""
    normalize: bool
    """Whether vectors are scaled to the norm 1."""
    max_input_tokens: int
    padding_side: Literal["left", "right"]


def read(directory: Path) -> VectorSpec:
    """Read the directory. Raises OSError, or ValueError that names the file and what is not understood."""
    modules = _modules(directory)
    config = read_config(directory)
    tokenizer = read_object(directory / "tokenizer_config.json", optional=True)
    transformer = read_object(directory / modules["Transformer"] / "sentence_bert_config.json", optional=True)
    limits = [
        transformer.get("max_seq_length"),
        config.get("max_position_embeddings"),
        tokenizer.get("model_max_length"),
    ]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    if not known:
        raise ValueError(f"{directory / 'config.json'} does not say how long a text may be (max_position_embeddings)")
    return VectorSpec(
        pooling=_pooling(directory / modules["Pooling"] / "config.json"),
        normalize="Normalize" in modules,
        max_input_tokens=min(known),
        padding_side="left" if tokenizer.get("padding_side") == "left" else "right",
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Return the checkpoint's config.json, or an empty object if the file does not exist. Raises ValueError."""
    return read_object(directory / "config.json", optional=True)


def _modules(directory: Path) -> dict[str, str]:
    """Return the folders of the steps from text to vector, by the step's class."""
    path = directory / "modules.json"
    try:
        entries = json.loads(path.read_text())
        modules = {entry["type"].rpartition(".")[2]: entry["path"] for entry in entries}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not understood: {error!r}") from None
    unknown = sorted(modules.keys() - set(_UNDERSTOOD))
    if unknown or not {"Transformer", "Pooling"} <= modules.keys():
        raise ValueError(f"{path} has the steps {', '.join(modules)}; understood are {', '.join(_UNDERSTOOD)}")
    return modules


def _pooling(path: Path) -> Pooling:
    config = read_object(path, optional=True)
    named = config.get("pooling_mode")
    chosen = (
        [named]
        if isinstance(named, str)
        else [name for name in config if name.startswith("pooling_mode_") and config[name]]
    )
    pooling = {**_POOLINGS, **_FLAGS}.get(chosen[0]) if len(chosen) == 1 else None
    if pooling is None:
        raise ValueError(f"{path}: pooling is {chosen}; it must be one of {', '.join(_FLAGS)}")
    return pooling
