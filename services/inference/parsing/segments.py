"""What a model's text is made of, once it is parsed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the thought."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the answer."""

    text: str
    start: int = field(default=0, compare=False)
    """Where it begins in the text that was parsed, in characters."""


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins."""

    index: int
    """Which call of this answer, from 0."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a tool call's arguments, as JSON text."""

    index: int
    json: str


Piece = Thought | Answer | CallStart | CallArguments


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with neighbours of one kind made one: what is ready at the same time travels together.

    Pieces of the answer that are neighbours follow one another in the text, too: what is no part of it, thought or
    call, was before them or stands between them.
    """
    result: list[Piece] = []
    for kind, group in groupby(pieces, key=_kind):
        match kind:
            case (_, "answer"):
                answers = [piece for piece in group if isinstance(piece, Answer)]
                result.append(Answer("".join(piece.text for piece in answers), answers[0].start))
            case (_, "thought"):
                result.append(Thought("".join(piece.text for piece in group if isinstance(piece, Thought))))
            case (index, "arguments"):
                text = "".join(piece.json for piece in group if isinstance(piece, CallArguments))
                result.append(CallArguments(index, text))
            case _:
                result += group
    return result


def _kind(piece: Piece) -> tuple[int, str]:
    match piece:
        case Answer():
            return 0, "answer"
        case Thought():
            return 0, "thought"
        case CallArguments(index, _):
            return index, "arguments"
        case CallStart(index, _):
            return index, "start"
