"""The segments of a model's parsed text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A part of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A part of the answer."""

    text: str
    start: int = field(default=0, compare=False)
    """The offset of the part in the text that was parsed, in characters."""


@dataclass(frozen=True, slots=True)
class CallStart:
    """The beginning of a tool call."""

    index: int
    """The number of the call in the choice, from 0."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A part of a tool call's arguments, as JSON text."""

    index: int
    json: str


Segment = Reasoning | Text | CallStart | CallArguments


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """Return `segments` with neighbours of one kind merged, so that they are sent as one delta.

    Neighbouring segments of the answer are also neighbours in the text: reasoning and calls are before or between them.
    """
    result: list[Segment] = []
    for kind, group in groupby(segments, key=_kind):
        match kind:
            case (_, "text"):
                texts = [segment for segment in group if isinstance(segment, Text)]
                result.append(Text("".join(segment.text for segment in texts), texts[0].start))
            case (_, "reasoning"):
                result.append(Reasoning("".join(segment.text for segment in group if isinstance(segment, Reasoning))))
            case (index, "arguments"):
                text = "".join(segment.json for segment in group if isinstance(segment, CallArguments))
                result.append(CallArguments(index, text))
            case _:
                result += group
    return result


def _kind(segment: Segment) -> tuple[int, str]:
    match segment:
        case Text():
            return 0, "text"
        case Reasoning():
            return 0, "reasoning"
        case CallArguments(index, _):
            return index, "arguments"
        case CallStart(index, _):
            return index, "start"
