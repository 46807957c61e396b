"""Parses a choice's text into reasoning, answer and tool calls, with the parsers of its model, one after another."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.minimax_calls import MiniMaxParser
from services.inference.parsing.reasoning import ReasoningParser
from services.inference.parsing.segments import Segment, Text
from services.inference.parsing.stop_strings import StopStrings
from services.inference.parsing.tool_calls import ToolCallParser
from services.inference.request.prompt import Prompt
from services.inference.request.structured_output.held_calls import TAGS, allows_several_calls, holds_calls
from services.inference.request.structured_output.response_format import requests_structured_output
from services.inference.request.tools import callable_functions, requires_call

_TOOL_PARSERS: Final[dict[str, type[ToolCallParser]]] = {"hermes": HermesParser, "minimax": MiniMaxParser}


class TextKind(Enum):
    """The kind of a plain text, which is reasoning or answer as a whole, and of which nothing is held back."""

    NONE = auto()
    """It is not plain."""
    REASONING = auto()
    HIDDEN = auto()
    """Reasoning that the caller does not want."""
    ANSWER = auto()


class AnswerParser:
    """Parses one choice's text, which arrives in chunks of any size.

    Stop strings are searched for behind the reasoning, in the notation of calls too: neither reasoning, nor the text
    with which the worker itself ends it, can stop an answer that has not begun. If the reasoning is left in the answer,
    it is searched as well.
    """

    def __init__(self, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Create the parsers that a checked request and its model need."""
        parsers = model.spec.parsers
        splits_reasoning = (
            parsers.reasoning
            and not request.reasoning.in_content
            and (prompt.separate_reasoning or not requests_structured_output(request))
        )
        self._reasoning = ReasoningParser(opened=prompt.opens_reasoning) if splits_reasoning else None
        self._tools: Final = _tool_parser(request, model)
        self._stops: Final = StopStrings(list(request.sampling.stop))
        self._has_stops: Final = bool(request.sampling.stop)
        self._hides_reasoning: Final = request.reasoning.exclude
        self._length = 0
        self._answer_start: int | None = None if splits_reasoning else 0
        self._answer_length = 0

    @property
    def in_reasoning(self) -> bool:
        """Whether the next token belongs to the reasoning."""
        return self._reasoning is not None and self._reasoning.in_reasoning

    @property
    def called(self) -> bool:
        """Whether the choice has tool calls, and all of them are complete."""
        return self._tools is not None and 0 < self._tools.complete == self._tools.calls

    @property
    def ended(self) -> bool:
        """Whether the choice is complete, because it has the only call that is allowed."""
        return self._tools is not None and self._tools.ended

    @property
    def decided(self) -> int:
        """The number of characters of the text that are known to be, or not to be, part of the answer."""
        if self._answer_start is None:
            return self._length if self.in_reasoning else 0
        return self._answer_start + (self._answer_length if self._tools is None else self._tools.decided)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    def feed(self, text: str, *, may_stop: bool = True) -> list[Segment]:
        """Parse the next chunk of text. Stop strings are searched for in it only if it `may_stop`."""
        self._length += len(text)
        if self._reasoning is None:
            return self._read_answer(text, may_stop=may_stop)
        return self._read_segments(self._reasoning.feed(text), may_stop=may_stop)

    def take_plain(self, text: str) -> TextKind:
        """Parse the next chunk of text like `feed` if it is plain. Otherwise return NONE, and change nothing.

        Most tokens are plain, and then this costs a fraction of `feed`.
        """
        reasoning = self._reasoning
        if reasoning is not None and not reasoning.in_answer:
            if not reasoning.passes(text):
                return TextKind.NONE
            self._length += len(text)
            return TextKind.HIDDEN if self._hides_reasoning else TextKind.REASONING
        if self._has_stops or self._answer_start is None:
            return TextKind.NONE
        length = len(text)
        if self._tools is not None and not self._tools.pass_through(text, length):
            return TextKind.NONE
        self._length += length
        self._answer_length += length
        return TextKind.ANSWER

    def close(self) -> list[Segment]:
        """Parse the end of the text."""
        segments = [] if self._reasoning is None else self._read_segments(self._reasoning.close(), may_stop=True)
        if self._stops.matched is None:
            segments += self._read_calls(self._stops.close())
        return segments + ([] if self._tools is None else self._shifted(self._tools.close()))

    def _read_segments(self, segments: Iterable[Segment], *, may_stop: bool) -> list[Segment]:
        read: list[Segment] = []
        for segment in segments:
            if isinstance(segment, Text):
                if self._answer_start is None:
                    # The answer extends to the end of the text.
                    self._answer_start = self._length - len(segment.text)
                read += self._read_answer(segment.text, may_stop=may_stop)
            elif not self._hides_reasoning:
                read.append(segment)
        return read

    def _read_answer(self, text: str, *, may_stop: bool) -> list[Segment]:
        return self._read_calls(self._stops.feed(text) if may_stop else text)

    def _read_calls(self, text: str) -> list[Segment]:
        """Parse text that is certainly part of the answer."""
        offset, self._answer_length = self._answer_length, self._answer_length + len(text)
        if self._tools is not None:
            return self._shifted(self._tools.feed(text))
        return [Text(text, (self._answer_start or 0) + offset)] if text else []

    def _shifted(self, segments: Iterable[Segment]) -> list[Segment]:
        """Return `segments` with offsets in the whole text instead of in the answer."""
        begin = self._answer_start or 0
        return [
            Text(segment.text, begin + segment.start) if isinstance(segment, Text) else segment for segment in segments
        ]


def _tool_parser(request: pb.GenerateRequest, model: ServedModel) -> ToolCallParser | None:
    functions, notation = callable_functions(request), model.spec.parsers.tool_calls
    only_one = not allows_several_calls(request)
    if requires_call(request):
        # The structured output makes the model write only the call, without the tags around it.
        return HermesParser(functions, only_one=only_one, opened=True, enforced=True)
    if notation and functions and holds_calls(request, model):
        return HermesParser(functions, only_one=only_one, enforced=True, tags=TAGS[notation])
    return _TOOL_PARSERS[notation](functions, only_one=only_one) if notation and functions else None
