"""A model's entry in a catalog: the YAML file ID.yaml in the catalog's directory."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.runtime import yaml_file


class Section(BaseModel):
    """Base of all parts of an entry: frozen, with no conversion of values, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CatalogEntry(Section):
    """The fields of every entry; each worker's catalog adds those that its models need."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """The public id."""
    created: date = Field(strict=False)
    """Also as text, because an entry that has passed through JSON has no dates."""
    owned_by: str
    checkpoint: str
    """The source of the weights."""
    licence: str
    """The weights' licence."""
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field([])
    """The main languages in which the model is useful, as ISO 639 codes."""
    descriptions: dict[Literal["en", "fa"], str]
    """The purpose of the model, in a sentence per language."""


Entry = TypeVar("Entry", bound=CatalogEntry)


def load(into: type[Entry], model_id: str, *, directory: Path, overlay: Path | None = None) -> Entry:
    """Read the entry of `model_id`: from `overlay`, if it has one, and otherwise from `directory`.

    Raises OSError, and ValueError for a model without an entry, or with one that has an unknown key or a value that
    does not fit; its message names the file, the line, the key and the value.
    """
    if overlay is not None and (overlay / f"{model_id}.yaml").is_file():
        directory = overlay
    path = directory / f"{model_id}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in directory.glob("*.yaml")))
        raise ValueError(f"there is no model {model_id!r} in the catalog; there are {known}")
    entry = yaml_file.read(path, into)
    if entry.id != model_id:
        raise ValueError(f"{path.name}: id: it must be the file's name, and is {entry.id!r}")
    return entry
