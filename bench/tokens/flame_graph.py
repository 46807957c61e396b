"""Draw a token's way as a flame graph: the stacks that py-spy samples, as wide as the processor time that they take.

Each process is as wide as its processor time per token, and divided among the stacks of its Python threads. Functions
of C belong to the Python function that called them, and so does the time of threads without Python, such as gRPC's, in
proportion. Triton's server has no Python, and is one box.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Final

from bench.tokens.svg import document

WIDTH: Final = 1200
ROW: Final = 17
LEAST_WIDTH: Final = 1.5
"""The narrowest box that is drawn, in pixels."""
CHARACTER: Final = 6.2
"""The width of a character, in pixels."""


_STARTS: Final = ("runpy", "__main__.py", "uvloop/", "asyncio/", "uvicorn/", "worker/main.py", "(threading.py")
"""In the outermost functions of all stacks, which say nothing."""


@dataclass
class Frame:
    """A function below others, with its share of the time."""

    name: str
    value: float = 0.0
    children: dict[str, Frame] = field(default_factory=dict)

    def add(self, stack: Iterable[str], value: float) -> None:
        """Add time of a stack, whose outermost function comes first."""
        frame = self
        frame.value += value
        for name in stack:
            frame = frame.children.setdefault(name, Frame(name))
            frame.value += value


def read_stacks(text: str) -> dict[tuple[str, ...], int]:
    """Return the samples by stack, from py-spy's format `raw`: `OUTERMOST;…;INNERMOST COUNT`.

    The functions that only start something are left out.
    """
    stacks: dict[tuple[str, ...], int] = {}
    for line in text.splitlines():
        names, _, count = line.rpartition(" ")
        if names:
            stack = tuple(dropwhile(_is_start, names.split(";")))
            stacks[stack] = stacks.get(stack, 0) + int(count)
    return stacks


def _is_start(name: str) -> bool:
    """Return whether an outer function only starts a thread, a program or an event loop."""
    return any(part in name for part in _STARTS)


def merge(processes: Mapping[str, tuple[float, Mapping[tuple[str, ...], int]]]) -> Frame:
    """Return the frame of a token, from the microseconds per token and the samples of each process."""
    root = Frame("a token")
    for name, (microseconds, stacks) in processes.items():
        samples = sum(stacks.values())
        if not samples:
            root.add([name], microseconds)
        for stack, count in stacks.items():
            root.add([name, *stack], microseconds * count / samples)
    return root


def draw(root: Frame, title: str) -> str:
    """Draw a self-contained SVG, with the outermost functions at the top. Boxes have their name as a tooltip."""
    boxes: list[str] = []
    depth = _draw(boxes, root, x=0.0, row=0, scale=WIDTH / max(root.value, 1e-9), whole=root.value)
    height = 30 + ROW * depth
    heading = f'<text x="4" y="16" font-size="13" font-family="sans-serif">{html.escape(title)}</text>'
    return document(WIDTH, height, attributes='font-family="monospace" font-size="10"', parts=[heading, *boxes])


def _draw(boxes: list[str], frame: Frame, *, x: float, row: int, scale: float, whole: float) -> int:
    """Draw a frame and those below it, and return the number of rows."""
    width, y = frame.value * scale, 26 + row * ROW
    if width < LEAST_WIDTH:
        return row
    label = f"{frame.name}: {frame.value:.1f} µs ({100 * frame.value / max(whole, 1e-9):.1f} %)"
    boxes.append(
        f'<g><title>{html.escape(label)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
        f'fill="{_colour(frame.name)}"/>{_text(frame, label, x, y, width)}</g>'
    )
    rows, at = row + 1, x
    for child in sorted(frame.children.values(), key=lambda each: -each.value):
        rows = max(rows, _draw(boxes, child, x=at, row=row + 1, scale=scale, whole=whole))
        at += child.value * scale
    return rows


def _text(frame: Frame, label: str, x: float, y: float, width: float) -> str:
    fitting = int((width - 4) / CHARACTER)
    if fitting < 4:
        return ""
    text = label if len(label) <= fitting else frame.name
    text = text if len(text) <= fitting else text[: fitting - 1] + "…"
    return f'<text x="{x + 2:.1f}" y="{y + 12}">{html.escape(text)}</text>'


def _colour(name: str) -> str:
    """Return a warm colour, which is the same for every occurrence of a name."""
    number = zlib.crc32(name.encode())
    return f"#{215 + number % 40:02x}{130 + number // 40 % 90:02x}{70 + number // 3600 % 50:02x}"
