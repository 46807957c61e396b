"""The models of a worker, as its setting `models` lists them: comma-separated ID=DIRECTORY, or ID alone."""

from __future__ import annotations

from pathlib import Path


def parse(value: str) -> dict[str, Path | None]:
    """Return the model directories by model id; None for a model that is named without one.

    Raises ValueError for an entry of another form, and for an id that occurs twice.
    """
    directories: dict[str, Path | None] = {}
    for entry in value.split(","):
        model_id, separator, directory = entry.strip().partition("=")
        if not model_id or bool(separator) != bool(directory):
            raise ValueError(f"{entry.strip()!r} is neither ID=DIRECTORY nor ID")
        if model_id in directories:
            raise ValueError(f"{model_id!r} is named twice")
        directories[model_id] = Path(directory) if directory else None
    return directories


def require_directory(model_id: str, directory: Path | None) -> Path:
    """Return `directory`. Raises ValueError for None: the model was named without a directory, and needs one."""
    if directory is None:
        raise ValueError(f"{model_id} needs its model directory: VILIX_MODELS={model_id}=DIRECTORY")
    return directory
