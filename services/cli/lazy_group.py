"""A group of commands whose modules are imported when they are called, so that `vilix --help` is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class LazyCommand:
    """A command that is not imported yet."""

    module: str
    """The module that has it."""
    attribute: str
    """The name there of a function, or of a `typer.Typer` with subcommands."""
    help: str
    """The first sentence of its help."""

    def load(self, name: str) -> Any:
        """Import the command."""
        found = getattr(import_module(self.module), self.attribute)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command(name)(found)
            command = get_command(app)
        command.name = name
        _make_readable(command)
        return command


def _no_type(ctx: Any) -> str:  # called with a name
    """Return what is shown as the type of a parameter without a type of interest."""
    return ""


def _hide_types(command: Any) -> None:
    """Hide the types of flags and arguments in a command's help, where Typer would show `<bool>` and `<str>`."""
    help_option = command.get_help_option(command.context_class(command))
    for parameter in (*command.params, *filter(None, [help_option])):
        if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
            parameter.display_type_rich = _no_type


def _make_readable(command: Any) -> None:
    _hide_types(command)
    _reflow(command)
    for subcommand in getattr(command, "commands", {}).values():
        _make_readable(subcommand)


def _reflow(command: Any) -> None:
    """Join the lines of each paragraph of a command's help, so that they fill the terminal. Indented lines stay."""
    lines: list[str] = []
    for line in (command.help or "").splitlines():
        continues = bool(lines) and all(text.strip() and not text.startswith(" ") for text in (lines[-1], line))
        if continues:
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    command.help = "\n".join(lines)


class LazyGroup(TyperGroup):
    """A group of `LazyCommand`s. A subclass sets `lazy_commands`."""

    lazy_commands: ClassVar[Mapping[str, LazyCommand]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # For lists and suggestions: commands that have only a name and a help text.
        self.commands = {name: TyperCommand(name, help=lazy.help) for name, lazy in self.lazy_commands.items()}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the group."""
        _hide_types(self)
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the called command, the imported command, and the remaining arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        lazy = self.lazy_commands.get(name or "")
        return name, command if lazy is None else lazy.load(name or ""), rest
