"""Write SVG in lines that are not too long."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

COLUMNS: Final = 120


def document(width: float, height: float, *, attributes: str, parts: Iterable[str]) -> str:
    """Return an SVG on white. Between attributes, coordinates and words, a line may end."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {attributes}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *parts,
        "</svg>",
    ]
    return "".join(
        textwrap.fill(line, COLUMNS, break_long_words=False, break_on_hyphens=False) + "\n" for line in lines
    )
