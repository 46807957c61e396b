"""The syntax tree of a grammar, and the error of an invalid one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

Ranges = tuple[tuple[int, int], ...]


class GbnfError(Exception):
    """A grammar is invalid, exceeds a limit, or cannot be translated: the id of a message, and its parameters.

    The caller adds the parameter `field`.
    """

    def __init__(self, message_id: str, /, **parameters: str | int) -> None:
        """`message_id` is one of services.runtime.messages."""
        super().__init__(f"{message_id} {parameters}")
        self.message_id: Final = message_id
        self.parameters: Final = parameters


@dataclass(slots=True)
class Characters:
    """One character of a class: ranges of code points, in order and without overlaps."""

    ranges: Ranges


@dataclass(slots=True)
class Reference:
    """A reference to another rule."""

    name: str
    line: int


@dataclass(slots=True)
class Sequence:
    """Consecutive items; without items, the empty text."""

    items: list[Node]


@dataclass(slots=True)
class Choice:
    """One of several options."""

    options: list[Node]


@dataclass(slots=True)
class Repetition:
    """An item, repeated `least` to `most` times; None for any number."""

    item: Node
    least: int
    most: int | None


Node = Characters | Reference | Sequence | Choice | Repetition


@dataclass(slots=True)
class Rule:
    """A rule, and the line at which it begins."""

    name: str
    line: int
    body: Node = field(default_factory=lambda: Sequence([]))


def nodes(body: Node) -> Iterator[Node]:
    """Yield all nodes of a body."""
    waiting = [body]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case Sequence(items) | Choice(items):
                waiting += items
            case Repetition(item, _, _):
                waiting.append(item)
