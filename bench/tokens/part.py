"""The options, rounds and results of each part of the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console

from bench.tokens.load_client import Row
from services.stack.display import Display

Rows = dict[str, list[Row]]
"""The rounds of each system or load."""
Name = TypeVar("Name")


@dataclass(frozen=True)
class Options:
    """The amount that is measured."""

    rounds: int
    is_quick: bool = False
    """Measure only enough to see that everything works."""

    def choose(self, full: int, quick: int) -> int:
        """Return the size of something for this run."""
        return quick if self.is_quick else full


Measure = Callable[[Options], Coroutine[Any, Any, Rows]]


@dataclass
class Recorder:
    """Collects rows, and prints each."""

    rows: Rows = field(default_factory=dict)

    def add(self, name: str, row: Row) -> None:
        """Add the figures of a round."""
        self.rows.setdefault(name, []).append(row)
        print(name, {key: round(value, 3) for key, value in row.items()}, file=sys.stderr, flush=True)


def in_turns(names: Sequence[Name], round_number: int) -> Sequence[Name]:
    """Return the order of a round: every other one is reversed, so that nobody is always first."""
    return names if round_number % 2 == 0 else names[::-1]


def display() -> Display:
    """Return what shows the starts of processes on the terminal."""
    return Display(Console(stderr=True))
