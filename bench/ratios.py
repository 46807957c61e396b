"""Summaries of measurements of systems that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def summary(values: Sequence[float], *, digits: int = 2) -> str:
    """Format the median and the range of values."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
