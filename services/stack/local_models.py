"""The models of a local stack, prepared from their sources once and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from services.deployment import rendering
from services.inference.model import gguf_identity
from services.inference.model.catalog import ModelSpec, load_model
from services.inference.weights import gguf_download
from services.inference.weights.gguf_download import Watcher
from services.inference.weights.resumable_download import DownloadError
from services.stack import demo_thinking, gguf_metadata, model_import, qwen3_tokenizer
from services.stack.cores import engine_threads
from services.stack.local_weights import model_directory, require_gguf, weights_directory
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
    own_name: str = ""
    """The name of a user's own weights; empty for those of the catalog."""
    warning: str = ""
    """A sentence about what may be a mistake; empty if nothing is."""

    @property
    def description(self) -> str:
        """A sentence about the model for the person who starts the stack."""
        return f"your file {self.own_name}" if self.own_name else load_model(self.id).descriptions["en"]

    def render(self, repository: Path) -> None:
        """Write the model to a Triton model repository."""
        spec = rendering.find(self.id)
        rendering.render(
            repository,
            spec,
            directory=self.directory,
            engine=self.engine,
            threads=engine_threads(),
            changes=self.changes,
        )


def embedding_model() -> LocalModel:
    """Return the embedding model, whose weights are in a Python package."""
    return LocalModel(EMBEDDING_MODEL, Path())


def small_model(cache: Path) -> LocalModel:
    """Prepare the small real model from the weights in a Python package, which takes some seconds."""
    directory = model_directory(SMALL_MODEL, cache)
    model_import.smollm2(directory)
    return LocalModel(SMALL_MODEL, directory)


def catalog_model(model_id: str, cache: Path, watcher: Watcher, *, context_length: int | None = None) -> LocalModel:
    """Prepare a model of the catalog that this machine can serve, and download its weights first if necessary.

    Args:
        model_id: The id of a chat model in the catalog.
        cache: The directory of prepared models.
        watcher: Shows the progress of the download.
        context_length: The longest context in tokens; by default, that of the entry's engine.

    Raises:
        StackError: The model is not in the catalog or needs a GPU, its weights cannot be downloaded, or it was trained
            for a shorter context.
    """
    if model_id == SMALL_MODEL:
        return _with_context_length(small_model(cache), context_length)
    gguf = require_gguf(model_id)
    _with_context_length(LocalModel(model_id, Path()), context_length)  # before the download
    directory = model_directory(model_id, cache)
    try:
        source = gguf_download.pull(gguf, weights_directory(cache), watcher)
        if (directory / "model.gguf").resolve() != source.resolve():
            model_import.from_gguf(source, directory)
    except (DownloadError, OSError, ValueError) as error:
        raise StackError(f"{model_id}: {error}") from None
    return _with_context_length(LocalModel(model_id, directory), context_length)


def _with_context_length(model: LocalModel, context_length: int | None) -> LocalModel:
    if context_length is None:
        return model
    _require_context(model.id, context_length, load_model(model.id).context_length)
    return replace(model, changes={**model.changes, "context_length": context_length})


def _require_context(model_id: str, context_length: int, longest: int) -> None:
    if context_length > longest:
        raise StackError(f"--context-length {context_length} is longer than {model_id} allows: {longest} tokens")


def thinking_demo(cache: Path, state: Path) -> LocalModel:
    """Prepare `replay-thinking`: recorded responses with reasoning, in Qwen3's tokens.

    Raises:
        StackError: Qwen3's tokenizer cannot be downloaded.
    """
    directory = model_directory(demo_thinking.MODEL, cache)
    try:
        qwen3_tokenizer.fetch(directory)
    except OSError as error:
        raise StackError(f"--demo-thinking: {error}") from None
    recordings = (state / "replay-thinking.json").absolute()
    demo_thinking.write_recordings(directory, recordings)
    return LocalModel(demo_thinking.MODEL, directory, changes={"recordings": str(recordings)})


def own_model(
    model_id: str, source: Path, state: Path, *, mmproj: Path | None = None, context_length: int | None = None
) -> LocalModel:
    """Prepare a user's own GGUF file under an id of the catalog, with the parsers of that entry.

    Args:
        model_id: The id of a chat model in the catalog.
        source: The GGUF file.
        state: The state directory, in which the model's files are written.
        mmproj: The GGUF file of its vision projector.
        context_length: The longest context in tokens; by default, one for the memory of a laptop.

    Raises:
        StackError: The id is not in the catalog, a file cannot be used, or the model was trained for a shorter context.
    """
    option = f"--gguf {model_id}={source}" + (f" --mmproj {model_id}={mmproj}" if mmproj else "")
    directory = (state / "models" / model_id).absolute()
    try:
        spec = load_model(model_id)
        if mmproj is not None:
            _require_vision(spec)
        metadata = gguf_metadata.read(source)
        model_import.from_gguf(source, directory, mmproj=mmproj)
        name = gguf_identity.name_of(metadata, source)
        gguf_identity.write_name(directory, name)
    except (OSError, ValueError) as error:
        raise StackError(f"{option}: {error}") from None
    trained_for = json.loads((directory / "tokenizer_config.json").read_text())["model_max_length"]
    longest = min(spec.context_length, trained_for)
    if context_length is None:
        context_length = min(longest, rendering.GGUF_CONTEXT_LENGTH)
    _require_context(model_id, context_length, longest)
    vision = {"mmproj": str(mmproj.absolute())} if mmproj else {}
    difference = gguf_identity.find_difference(spec, metadata, source)
    return LocalModel(
        model_id,
        directory,
        "llamacpp",
        {"context_length": context_length, **vision},
        own_name=name,
        warning=f"{option}: {difference}" if difference else "",
    )


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
