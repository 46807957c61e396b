"""Plot series over time as a self-contained SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench import ticks

WIDTH: Final = 960
PANEL_HEIGHT: Final = 220
LEFT, RIGHT, TOP, GAP = 64, 250, 34, 58
MOST_POINTS: Final = 240
"""The most points of one line; more could not be distinguished."""
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17a2b8", "#8c564b", "#e377c2", "#7f7f7f",
                  "#6b8e23", "#c49a00", "#4b61d1")  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One diagram with its own vertical axis."""

    title: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel], *, warm_up_seconds: float) -> str:
    """Draw panels one below the other. The time before `warm_up_seconds` is shaded."""
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (PANEL_HEIGHT + GAP), warm_up_seconds)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, top: float, warm_up_seconds: float) -> list[str]:
    end = max((line.seconds[-1] for line in panel.lines if line.seconds), default=1.0) or 1.0
    step = ticks.distance(max((max(line.values) for line in panel.lines if line.values), default=1.0))
    ceiling = (
        step * math.ceil(max((max(line.values) for line in panel.lines if line.values), default=1.0) / step) or 1.0
    )
    width = WIDTH - LEFT - RIGHT

    def x(seconds: float) -> float:
        return LEFT + width * seconds / end

    def y(value: float) -> float:
        return top + PANEL_HEIGHT * (1 - value / ceiling)

    parts = [
        f'<text x="{LEFT}" y="{top - 10:.0f}" font-weight="bold">{html.escape(panel.title)}</text>',
        f'<path d="M{LEFT} {top}H{x(min(warm_up_seconds, end)):.1f}V{top + PANEL_HEIGHT}H{LEFT}Z" fill="#eeeeee"/>',
    ]
    for tick in range(round(ceiling / step) + 1):
        value = tick * step
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{LEFT + width}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    minutes = ticks.distance(end / 60)
    for tick in range(int(end / 60 / minutes) + 1):
        at = x(tick * minutes * 60)
        parts.append(
            f'<text x="{at:.1f}" y="{top + PANEL_HEIGHT + 16}" text-anchor="middle">{tick * minutes:g} min</text>'
        )
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        every = max(1, len(line.seconds) // MOST_POINTS)
        points = zip(line.seconds[::every], line.values[::every], strict=True)
        path = "L".join(f"{x(seconds):.1f} {y(value):.1f}" for seconds, value in points)
        dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>')
        label_y = top + 10 + 16 * number
        parts.append(
            f'<path d="M{LEFT + width + 12} {label_y - 4}h18" stroke="{colour}" stroke-width="3"{dashes}/>'
            f'<text x="{LEFT + width + 36}" y="{label_y}">{html.escape(line.name)}</text>'
        )
    return parts
