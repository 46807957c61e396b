"""The `vilix` command."""

from __future__ import annotations

import typer

from services.cli import keys
from services.cli.up import up

app = typer.Typer(
    name="vilix",
    help="Self-hosted AI inference behind one OpenAI-format API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up)
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line."""
    app()
