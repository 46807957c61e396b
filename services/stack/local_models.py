"""The models of a local stack: what each is made of, prepared once and kept."""

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
    """Tokenizer and template."""
    engine: str | None = None
    """The one of its entry in the catalog unless given."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the engine that are not those of its entry."""

    def render(self, repository: Path) -> None:
        """Write it into a Triton model repository."""
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
    """The embedding model whose weights are in a Python package."""
    return LocalModel(EMBEDDING_MODEL, Path())


def small_model(cache: Path) -> LocalModel:
    """The small real model, from the weights in a Python package. Making it takes some seconds."""
    directory = (cache / "models" / SMALL_MODEL).absolute()
    model_import.smollm2(directory)
    return LocalModel(SMALL_MODEL, directory)


def thinking_demo(cache: Path, state: Path) -> LocalModel:
    """Recorded answers with thoughts, in Qwen3's tokens. Raises StackError when its tokenizer cannot be had."""
    directory = (cache / "models" / demo_thinking.MODEL).absolute()
    try:
        qwen3_tokenizer.fetch(directory)
    except OSError as error:
        raise StackError(f"--demo-thinking: {error}") from None
    recordings = (state / "replay-thinking.json").absolute()
    demo_thinking.write_recordings(directory, recordings)
    return LocalModel(demo_thinking.MODEL, directory, changes={"recordings": str(recordings)})


def own_model(model_id: str, source: Path, state: Path, *, mmproj: Path | None = None) -> LocalModel:
    """Somebody's own GGUF under an id of the catalog, whose parsers it gets; `mmproj` is the GGUF of its eyes.

    Raises StackError for an id that is not in the catalog, and a file that cannot be used.
    """
    option = f"--gguf {model_id}={source}" + (f" --mmproj {model_id}={mmproj}" if mmproj else "")
    directory = (state / "models" / model_id).absolute()
    try:
        spec = load_model(model_id)
        if mmproj is not None:
            _reject_blind(spec)
        model_import.from_gguf(source, directory, mmproj=mmproj)
    except (OSError, ValueError) as error:
        raise StackError(f"{option}: {error}") from None
    trained_for = json.loads((directory / "tokenizer_config.json").read_text())["model_max_length"]
    context_length = min(spec.context_length, rendering.GGUF_CONTEXT_LENGTH, trained_for)
    eyes = {"mmproj": str(mmproj.absolute())} if mmproj else {}
    return LocalModel(model_id, directory, "llamacpp", {"context_length": context_length, **eyes})


def _reject_blind(spec: ModelSpec) -> None:
    if spec.images is None:
        raise ValueError(f"{spec.id} reads no images; give it as one that does, such as qwen3-vl")


def parse_files(name: str, options: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The ids and files of options `name` ID=PATH. Raises StackError for another form, or a file that is not there."""
    for option in options:
        model_id, separator, path = option.partition("=")
        if not separator or not model_id or not path:
            raise StackError(f"{name} {option}: give it as ID=PATH, for example {name} {_EXAMPLES[name]}")
        if not Path(path).is_file():
            raise StackError(f"{name} {option}: there is no file {path}")
        yield model_id, Path(path)


_EXAMPLES: Final = {"--gguf": "qwen3-8b=Qwen3-8B-Q4_K_M.gguf", "--mmproj": "qwen3-vl=mmproj-F16.gguf"}


def threads() -> int:
    """Cores of an engine: one of two computes, the other is for everything around it."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
