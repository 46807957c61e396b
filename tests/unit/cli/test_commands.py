"""The list of commands, which is shown without importing them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.main import EVERYWHERE, LOCAL, app
from tests.support.repository import ROOT

COMMANDS = {**LOCAL, **EVERYWHERE}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_first_sentence_of_each_commands_help(name: str) -> None:
    assert COMMANDS[name].load(name).help.strip().splitlines()[0] == COMMANDS[name].help


def test_help_lists_all_commands_and_what_they_do() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"│ {name} +{re.escape(command.help)}", result.stdout)
    assert "--install-completion" in result.stdout


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield a command, or all below it, with the words that call them."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield path, command
    for name, subcommand in (subcommands or {}).items():
        yield from leaves(subcommand, (*path, name))


LEAVES = {" ".join(path): command for name in COMMANDS for path, command in leaves(COMMANDS[name].load(name), (name,))}


@pytest.mark.parametrize("words", LEAVES)
def test_help_names_what_a_value_is_and_no_type_of_python(words: str) -> None:
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0
    assert not re.search(r"<\w", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", LEAVES)
def test_every_command_can_print_json(words: str) -> None:
    # `keys export` writes nothing but JSON.
    assert words == "keys export" or any("--json" in parameter.opts for parameter in LEAVES[words].params)


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["lgos"])
    assert result.exit_code == 2
    assert "logs" in result.stderr


def test_the_version_is_the_one_of_the_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"vilix {version('vilix')}\n"


def test_make_run_keeps_ctrl_c_for_the_stack() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nrun: $(RUNNABLE)")[2].partition("\n\n")[0]
    assert "up --own-foreground " in recipe
