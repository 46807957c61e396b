"""A plot of series as SVG, legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_COLOURS: Final = ("#3b82f6", "#e8590c", "#2f9e44", "#c2255c", "#8b5cf6", "#0c8599", "#b08900", "#868e96")
_WIDTH, _PANEL, _LEFT, _PLOT, _POINTS = 1000, 210, 70, 620, 240

Series = Mapping[str, Sequence[tuple[float, float]]]


def draw(panels: Mapping[str, Series]) -> str:
    """Draw one panel for each title: seconds from the left to the right, values upwards from zero."""
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    dashes = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')
    height = max(_PANEL * len(panels), 40 + 18 * len(names))
    style = {
        name: f'stroke="{_COLOURS[index % len(_COLOURS)]}"{dashes[index // len(_COLOURS) % len(dashes)]}'
        for index, name in enumerate(names)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12"><style>text{fill:#24292f}.a{stroke:#8889;fill:none}'
        "@media(prefers-color-scheme:dark){text{fill:#d0d7de}}</style>"
    ]
    for number, (title, series) in enumerate(panels.items()):
        parts.append(_panel(number * _PANEL, title, series, style))
    for index, name in enumerate(names):
        y = 30 + 18 * index
        parts.append(f'<path d="M710 {y}h24" fill="none" stroke-width="2" {style[name]}/>')
        parts.append(f'<text x="740" y="{y + 4}">{escape(name)}</text>')
    return "".join(parts) + "</svg>\n"


def _panel(top: int, title: str, series: Series, style: Mapping[str, str]) -> str:
    points = [point for line in series.values() for point in line]
    end = max((x for x, _ in points), default=0) or 1
    high = (max((y for _, y in points), default=0) or 1) * 1.05
    bottom, tall = top + 180, 150
    parts = [f'<text x="{_LEFT}" y="{top + 20}" font-weight="bold">{escape(title)}</text>']
    for step in range(5):
        y, x = bottom - tall * step / 4, _LEFT + _PLOT * step / 4
        parts.append(f'<path class="a" d="M{_LEFT} {y:.1f}h{_PLOT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{high * step / 4:.4g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{end * step / 4 / 60:.3g} min</text>')
    for name, line in series.items():
        thin = line[:: max(1, len(line) // _POINTS)]
        path = "L".join(f"{_LEFT + _PLOT * x / end:.1f} {bottom - tall * y / high:.1f}" for x, y in thin)
        if path:
            parts.append(f'<path d="M{path}" fill="none" stroke-width="1.5" {style[name]}/>')
    return "".join(parts)
