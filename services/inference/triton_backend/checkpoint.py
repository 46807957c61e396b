"""The facts about a checkpoint that an engine needs before its library loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.worker.triton_kit.checkpoint_file import read_object


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts from a model directory's JSON files."""

    architecture: str
    """The name of the model class."""
    vocabulary: int
    """The number of token ids. A larger id fails an assertion on the device, which ends the whole engine."""
    end_ids: frozenset[int]
    """All tokens that end a generation. TensorRT-LLM itself uses only the tokenizer's end token."""
    image_token_id: int | None
    """The placeholder of an image in a prompt; None for a model without vision."""


def read(directory: Path) -> Checkpoint:
    """Read `directory`, as Hugging Face lays it out. Raises OSError or ValueError that names the file."""
    config = read_object(directory / "config.json")
    text = config.get("text_config", config)
    generation = directory / "generation_config.json"
    ends = (read_object(generation) if generation.exists() else config).get("eos_token_id")
    try:
        return Checkpoint(
            architecture=config["architectures"][0],
            vocabulary=int(text.get("vocab_size") or config["vocab_size"]),
            end_ids=frozenset([ends] if isinstance(ends, int) else ends or ()),
            image_token_id=config.get("image_token_id"),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"{directory / 'config.json'} has no {error}") from None
