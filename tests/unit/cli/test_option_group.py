"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from services.cli.option_group import with_options

RUNNER = CliRunner()


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="Columns.")] = 80
    lines: Annotated[list[str] | None, typer.Option(help="Lines.")] = None


app = typer.Typer()


@app.command()
@with_options(Size)
def draw(name: str, *, options: Size, is_bold: Annotated[bool, typer.Option("--bold")] = False) -> None:
    """Draw something."""
    print(name, options, is_bold)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["box"], "box Size(width=80, lines=None) False"),
        (["box", "--width", "7", "--lines", "a", "--lines", "b"], "box Size(width=7, lines=['a', 'b']) False"),
        (["box", "--bold"], "box Size(width=80, lines=None) True"),
    ],
)
def test_a_command_gets_the_shared_options_as_one_object(arguments: list[str], printed: str) -> None:
    result = RUNNER.invoke(app, arguments)
    assert (result.exit_code, result.stdout.strip()) == (0, printed)


def test_help_lists_the_shared_options_before_those_that_follow() -> None:
    text = RUNNER.invoke(app, ["--help"]).stdout
    assert text.index("Draw something.") < text.index("--width") < text.index("--lines") < text.index("--bold")
    assert "--options" not in text
