"""Tables that fit the terminal."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from services.cli.json_output import print_json
from services.cli.table import Column, make_table, print_table

COLUMNS = (Column("id"), Column("first", rank=1), Column("second", rank=2), Column("limits", folds=True))
ROW = ("key_0123456789Ab", "x" * 20, "y" * 20, "rpm 60, concurrency 5")


def lines(width: int) -> list[str]:
    console = Console(width=width, record=True)
    console.print(make_table(COLUMNS, [ROW], width=width))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_columns_are_left_out_by_their_rank_until_the_rest_fits() -> None:
    assert [title for title in ("first", "second", "limits") if title in lines(120)[0]] == ["first", "second", "limits"]
    assert [title for title in ("first", "second", "limits") if title in lines(60)[0]] == ["first", "limits"]
    assert [title for title in ("first", "second", "limits") if title in lines(40)[0]] == ["limits"]
    for width in (30, 40, 60, 120):
        assert max(map(len, lines(width))) <= width
        assert "key_0123456789Ab" in lines(width)[1], "an id is never cut"


def test_markup_in_a_cell_is_shown_as_it_is() -> None:
    console = Console(width=80, record=True)
    console.print(make_table((Column("name"),), [("[bold]x[/]",)], width=80))
    assert "[bold]x[/]" in console.export_text()


def test_no_cell_and_no_json_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x07\x9b31m\u202eb\nc می\u200cشود"
    console = Console(width=80, record=True)
    console.print(make_table((Column("name"),), [(hostile,)], width=80))
    assert "a\ufffd[2J\ufffd\ufffd31m\ufffdb\ufffdc می\u200cشود" in console.export_text()
    capsys.readouterr()
    print_json({"name": hostile})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": hostile}
    assert not any("\x7f" <= each <= "\x9f" or each in "\x1b\u202e" for each in printed)
    assert "می" in printed


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [], empty="There are no keys.")
    assert capsys.readouterr().out == "There are no keys.\n"
