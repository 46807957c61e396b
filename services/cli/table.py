"""Tables that fit the terminal: columns that do not fit are left out in the order of their importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PADDING = 2
_FORMATTING = "\u00a0\u200c\u200d"
"""A space without a break, and the joiners of Persian and other scripts."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    rank: int = 0
    """Columns with the highest rank are left out first; those with 0 never."""
    justify: Literal["left", "right"] = "left"
    folds: bool = False
    """Whether its text may take several lines where the terminal is narrow. The text of other columns never does."""


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table without lines, or the sentence `empty` if it has no rows."""
    console = Console()
    if not rows:
        console.print(escape(empty), highlight=False, soft_wrap=True)
        return
    console.print(make_table(columns, rows, width=console.width))


def printable(text: str) -> str:
    """Return a text without characters that control a terminal, such as escapes and changes of direction."""
    return "".join(each if each.isprintable() or each in _FORMATTING else "\ufffd" for each in text)


def make_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> Table:
    """Return a table whose columns fit `width`, as far as their text may be folded."""
    rows = [[printable(text) for text in row] for row in rows]
    shown = list(range(len(columns)))
    while _least_width(columns, rows, shown) > width:
        least = max(shown, key=lambda index: columns[index].rank)
        if columns[least].rank == 0:
            break
        shown.remove(least)
    table = Table(box=None, pad_edge=False, padding=(0, _PADDING, 0, 0), header_style="bold")
    for index in shown:
        column = columns[index]
        table.add_column(column.title, justify=column.justify, no_wrap=not column.folds, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    return table


def _least_width(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    widths = 0
    for index in shown:
        texts = [columns[index].title, *(row[index] for row in rows)]
        if columns[index].folds:
            texts = [columns[index].title, *(word for row in rows for word in row[index].split())]
        widths += max(map(cell_len, texts)) + _PADDING
    return widths - _PADDING
