"""Plot figures over the number of streams as self-contained SVGs."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench import ticks
from bench.tokens.svg import document

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 44, 44
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17a2b8")


@dataclass(frozen=True)
class Line:
    """One line: for each number of streams, the values of all rounds, of which the median is drawn on a bar."""

    name: str
    points: Sequence[tuple[float, Sequence[float]]]


def draw(title: str, lines: Sequence[Line], *, x_label: str, is_logarithmic: bool = False) -> str:
    """Draw lines over a logarithmic horizontal axis. `is_logarithmic` is about the vertical one."""
    numbers = sorted({number for line in lines for number, _ in line.points})
    values = [value for line in lines for _, rounds in line.points for value in rounds]
    axis = _Axis(values, is_logarithmic=is_logarithmic)
    spread = math.log(numbers[-1] / numbers[0]) or 1.0

    def x(number: float) -> float:
        return LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * math.log(number / numbers[0]) / spread

    parts = [
        f'<text x="{LEFT}" y="22" font-weight="bold">{html.escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>",
    ]
    for tick in axis.ticks:
        parts.append(f'<path d="M{LEFT} {axis.y(tick):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{axis.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{x(number):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number:g}</text>'
        for number in numbers
    ]
    for index, line in enumerate(lines):
        parts += _line(line, axis, x, COLOURS[index % len(COLOURS)], TOP + 10 + 20 * index)
    return document(WIDTH, HEIGHT, attributes='font-family="sans-serif" font-size="12"', parts=parts)


class _Axis:
    """The vertical axis."""

    def __init__(self, values: Sequence[float], *, is_logarithmic: bool) -> None:
        self._is_logarithmic: Final = is_logarithmic
        most = max(values)
        if is_logarithmic:
            low, high = math.floor(math.log10(max(min(values), 1e-3))), math.ceil(math.log10(most))
            self._low, self._high = float(low), float(max(high, low + 1))
            self.ticks = [10.0**power for power in range(low, int(self._high) + 1)]
        else:
            step = ticks.distance(most)
            self._low, self._high = 0.0, step * math.ceil(most / step)
            self.ticks = [step * number for number in range(round(self._high / step) + 1)]

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        at = math.log10(max(value, 1e-3)) if self._is_logarithmic else value
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (at - self._low) / (self._high - self._low))


def _line(line: Line, axis: _Axis, x: Callable[[float], float], colour: str, label_y: float) -> list[str]:
    path = "L".join(f"{x(number):.1f} {axis.y(median(rounds)):.1f}" for number, rounds in line.points)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for number, rounds in line.points:
        parts.append(
            f'<path d="M{x(number):.1f} {axis.y(min(rounds)):.1f}V{axis.y(max(rounds)):.1f}" stroke="{colour}"/>'
            f'<circle cx="{x(number):.1f}" cy="{axis.y(median(rounds)):.1f}" r="3" fill="{colour}"/>'
        )
    at = WIDTH - RIGHT + 14
    parts.append(
        f'<path d="M{at} {label_y - 4:.0f}h18" stroke="{colour}" stroke-width="3"/>'
        f'<text x="{at + 24}" y="{label_y:.0f}">{html.escape(line.name)}</text>'
    )
    return parts
