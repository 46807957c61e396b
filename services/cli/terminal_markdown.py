"""Markdown on a terminal: the styles of one line, and tables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_BOLD, _NOT_BOLD = "\x1b[1m", "\x1b[22m"
_ITALIC, _NOT_ITALIC = "\x1b[3m", "\x1b[23m"
_STRUCK, _NOT_STRUCK = "\x1b[9m", "\x1b[29m"
_CODE, _NOT_CODE = "\x1b[36m", "\x1b[39m"
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")

_INLINE: Final = re.compile(
    r"\\(?P<escaped>[\\`*_~\[\]#|-])"
    r"|(?P<ticks>`+)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)"
    r"|\*\*(?=\S)(?P<bold>.+?)(?<=\S)\*\*"
    r"|~~(?=\S)(?P<struck>.+?)(?<=\S)~~"
    r"|(?<!\*)\*(?=[^\s*])(?P<italic>[^*]+?)(?<=\S)\*(?!\*)"
    r"|\[(?P<label>[^\]]+)\]\((?P<url>[^)\s]+)\)"
)
_OPEN: Final = re.compile(r"(?P<mark>\*\*|~~|`|(?<!\*)\*)(?=[^\s*`~])(?!.*(?P=mark))")
_PARTIAL: Final = re.compile(r"(?:\*{1,2}|~{1,2}|`{1,3})$")
_HEADING: Final = re.compile(r"#{1,6}\s+(?P<text>.*?)\s*#*$")
_ITEM: Final = re.compile(r"(?P<indent>\s*)[-*+]\s+(?P<text>.*)$")
_QUOTE: Final = re.compile(r"\s*>\s?(?P<text>.*)$")
_RULE: Final = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*$")
_BEGINNING: Final = re.compile(r"\s*(?:#{1,6}|[-+*]|>)\s?$")
_FENCE: Final = re.compile(r"\s{0,3}(?P<fence>`{3,}|~{3,})")
_SEPARATOR: Final = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_CELL: Final = re.compile(r"(?<!\\)\|")


def fence(line: str) -> str:
    """Return the marks with which a line begins or ends a block of code; empty if it does neither."""
    match = _FENCE.match(line)
    return match["fence"] if match else ""


def is_row(line: str) -> bool:
    """Return whether a line may be one of a table."""
    return line.lstrip().startswith("|")


def width(text: str) -> int:
    """Return the columns of a styled text on a terminal."""
    return cell_len(_ESCAPE.sub("", text))


def code(line: str) -> str:
    """Return a line of a block of code in its colour."""
    return f"{_CODE}{line}{_NOT_CODE}" if line else ""


def line(text: str, *, is_complete: bool) -> str:
    """Return a line with styles instead of marks. In a line that still grows, open marks are closed."""
    if not is_complete:
        if _BEGINNING.match(text):
            return ""
        text = _closed(text)
    elif _RULE.match(text):
        return "─" * 20
    if match := _HEADING.match(text):
        return f"{_BOLD}{inline(match['text'])}{_NOT_BOLD}"
    if match := _ITEM.match(text):
        return f"{match['indent']}• {inline(match['text'])}"
    if match := _QUOTE.match(text):
        return f"│ {inline(match['text'])}"
    return inline(text)


def inline(text: str) -> str:
    """Return a text with styles instead of the marks within a line."""
    return _INLINE.sub(_styled, text)


def table(rows: Sequence[str], columns: int) -> list[str] | None:
    """Return the lines of a table that fits the terminal, or None if the rows are none."""
    if len(rows) < 2 or not _SEPARATOR.match(rows[1]):
        return None
    cells = [_cells(row) for row in (rows[0], *rows[2:])]
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in cells[0]:
        grid.add_column(Text.from_ansi(inline(title)), overflow="fold")
    for row in cells[1:]:
        filled = [*row, *[""] * len(cells[0])][: len(cells[0])]
        grid.add_row(*(Text.from_ansi(inline(cell)) for cell in filled))
    text = io.StringIO()
    Console(file=text, width=columns, force_terminal=True, color_system="standard").print(grid)
    # The frame has an empty line above and below.
    return [row.rstrip() for row in text.getvalue().split("\n") if row.strip()]


def _styled(match: re.Match[str]) -> str:
    if escaped := match["escaped"]:
        return escaped
    if match["code"]:
        return f"{_CODE}{match['code'].strip()}{_NOT_CODE}"
    if bold := match["bold"]:
        return f"{_BOLD}{inline(bold)}{_NOT_BOLD}"
    if struck := match["struck"]:
        return f"{_STRUCK}{inline(struck)}{_NOT_STRUCK}"
    if italic := match["italic"]:
        return f"{_ITALIC}{inline(italic)}{_NOT_ITALIC}"
    return f"{inline(match['label'])} ({match['url']})"


def _closed(text: str) -> str:
    """Close what is open at the end of a growing text, and hide a mark of which the rest may follow."""
    text = _PARTIAL.sub("", text)
    marks = [match["mark"] for match in _OPEN.finditer(_INLINE.sub("", text))]
    return text + "".join(reversed(marks))


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(inner)]
