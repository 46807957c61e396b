"""The models of a local stack, prepared from their sources once and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.deployment import rendering
from services.inference import model_import
from services.inference.model.catalog import ModelSpec, load_model
from services.stack import demo_thinking, qwen3_tokenizer
from services.stack.supervisor import StackError

SMALL_MODEL: Final = "smollm2-135m"
EMBEDDING_MODEL: Final = "multilingual-e5-small"


@dataclass(frozen=True)
class LocalModel:
    """A model that Triton serves on this machine."""

    id: str
    directory: Path
    """The directory of its tokenizer and chat template."""
    engine: str | None = None
    """The engine; by default, the engine of its catalog entry."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the engine that replace those of its catalog entry."""

    def render(self, repository: Path) -> None:
        """Write the model to a Triton model repository."""
        spec = rendering.find(self.id)
        rendering.render(
            repository,
            spec,
            directory=self.directory,
            engine=self.engine,
            threads=threads(),
            changes=self.changes,
        )


def embedding_model() -> LocalModel:
    """Return the embedding model, whose weights are in a Python package."""
    return LocalModel(EMBEDDING_MODEL, Path())


def small_model(cache: Path) -> LocalModel:
    """Prepare the small real model from the weights in a Python package, which takes some seconds."""
    directory = (cache / "models" / SMALL_MODEL).absolute()
    model_import.smollm2(directory)
    return LocalModel(SMALL_MODEL, directory)


def thinking_demo(cache: Path, state: Path) -> LocalModel:
    """Prepare `replay-thinking`: recorded responses with reasoning, in Qwen3's tokens.

    Raises:
        StackError: Qwen3's tokenizer cannot be downloaded.
    """
    directory = (cache / "models" / demo_thinking.MODEL).absolute()
    try:
        qwen3_tokenizer.fetch(directory)
    except OSError as error:
        raise StackError(f"--demo-thinking: {error}") from None
    recordings = (state / "replay-thinking.json").absolute()
    demo_thinking.write_recordings(directory, recordings)
    return LocalModel(demo_thinking.MODEL, directory, changes={"recordings": str(recordings)})


def own_model(model_id: str, source: Path, state: Path, *, mmproj: Path | None = None) -> LocalModel:
    """Prepare a user's own GGUF file under an id of the catalog, with the parsers of that entry.

    Args:
        model_id: The id of a chat model in the catalog.
        source: The GGUF file.
        state: The state directory, in which the model's files are written.
        mmproj: The GGUF file of its vision projector.

    Raises:
        StackError: The id is not in the catalog, or a file cannot be used.
    """
    option = f"--gguf {model_id}={source}" + (f" --mmproj {model_id}={mmproj}" if mmproj else "")
    directory = (state / "models" / model_id).absolute()
    try:
        spec = load_model(model_id)
        if mmproj is not None:
            _require_vision(spec)
        model_import.from_gguf(source, directory, mmproj=mmproj)
    except (OSError, ValueError) as error:
        raise StackError(f"{option}: {error}") from None
    trained_for = json.loads((directory / "tokenizer_config.json").read_text())["model_max_length"]
    context_length = min(spec.context_length, rendering.GGUF_CONTEXT_LENGTH, trained_for)
    vision = {"mmproj": str(mmproj.absolute())} if mmproj else {}
    return LocalModel(model_id, directory, "llamacpp", {"context_length": context_length, **vision})


def _require_vision(spec: ModelSpec) -> None:
    if spec.images is None:
        raise ValueError(f"{spec.id} does not support images; use the id of a model that does, such as qwen3-vl")


def parse_files(name: str, options: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield the ids and files of the values ID=PATH of the option `name`.

    Raises:
        StackError: A value has another format, or its file does not exist.
    """
    for option in options:
        model_id, separator, path = option.partition("=")
        if not separator or not model_id or not path:
            raise StackError(f"{name} {option}: the value must be ID=PATH, for example {name} {_EXAMPLES[name]}")
        if not Path(path).is_file():
            raise StackError(f"{name} {option}: there is no file {path}")
        yield model_id, Path(path)


_EXAMPLES: Final = {"--gguf": "qwen3-8b=Qwen3-8B-Q4_K_M.gguf", "--mmproj": "qwen3-vl=mmproj-F16.gguf"}


def threads() -> int:
    """Return the number of cores of one engine: half of them, so that the other half runs everything else."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
