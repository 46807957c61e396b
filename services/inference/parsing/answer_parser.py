"""A model's text to thoughts, answer and tool calls: the parsers of one choice, one behind the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.minimax_calls import MiniMaxParser
from services.inference.parsing.reasoning import ReasoningParser
from services.inference.parsing.segments import Answer, Piece
from services.inference.parsing.stop_strings import StopStrings
from services.inference.parsing.tool_calls import ToolCallParser
from services.inference.request.prompt import Prompt
from services.inference.request.structured_output import is_guided
from services.inference.request.tools import callable_functions, requires_call

_TOOL_PARSERS: Final[dict[str, type[ToolCallParser]]] = {"hermes": HermesParser, "minimax": MiniMaxParser}


class AnswerParser:
    """Reads one choice's text in pieces of any size.

    Stop strings are looked for in what follows the thought, the notation of calls included: neither a thought nor what
    we write ourselves to end one can end an answer that has not begun. Where the thought is left in the answer, it is
    part of what is looked at.
    """

    def __init__(self, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Of a checked request. What its model or the request does not use is not looked for."""
        parsers = model.spec.parsers
        thinks = (
            parsers.reasoning
            and not request.reasoning.in_content
            and (prompt.reasoning_apart or not is_guided(request))
        )
        self._reasoning = ReasoningParser(opened=prompt.opens_reasoning) if thinks else None
        self._tools: Final = _tool_parser(request, model)
        self._stops: Final = StopStrings(list(request.sampling.stop))
        self._hides_reasoning: Final = request.reasoning.exclude
        self._length = 0
        self._answer_begin: int | None = None if thinks else 0
        self._answer_length = 0

    @property
    def thinking(self) -> bool:
        """Whether the next token belongs to the thought."""
        return self._reasoning is not None and self._reasoning.thinking

    @property
    def called(self) -> bool:
        """Whether the answer is tool calls, all of them complete."""
        return self._tools is not None and 0 < self._tools.complete == self._tools.calls

    @property
    def ended(self) -> bool:
        """Whether nothing more is wanted: the one call that was allowed is complete."""
        return self._tools is not None and self._tools.ended

    @property
    def decided(self) -> int:
        """Of how many of the text's characters it is clear whether they are part of the answer."""
        if self._answer_begin is None:
            return self._length if self.thinking else 0
        return self._answer_begin + (self._answer_length if self._tools is None else self._tools.decided)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.found

    def feed(self, text: str, *, may_stop: bool = True) -> list[Piece]:
        """Read the next piece of text. Only if it `may_stop` are stop strings looked for in it."""
        self._length += len(text)
        if self._reasoning is None:
            return self._read_answer(text, may_stop=may_stop)
        return self._read_pieces(self._reasoning.feed(text), may_stop=may_stop)

    def close(self) -> list[Piece]:
        """Read the end of the text."""
        pieces = [] if self._reasoning is None else self._read_pieces(self._reasoning.close(), may_stop=True)
        if self._stops.found is None:
            pieces += self._read_calls(self._stops.close())
        return pieces + ([] if self._tools is None else self._placed(self._tools.close()))

    def _read_pieces(self, pieces: Iterable[Piece], *, may_stop: bool) -> list[Piece]:
        read: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, Answer):
                if self._answer_begin is None:
                    # An answer goes on to the text's end.
                    self._answer_begin = self._length - len(piece.text)
                read += self._read_answer(piece.text, may_stop=may_stop)
            elif not self._hides_reasoning:
                read.append(piece)
        return read

    def _read_answer(self, text: str, *, may_stop: bool) -> list[Piece]:
        return self._read_calls(self._stops.feed(text) if may_stop else text)

    def _read_calls(self, text: str) -> list[Piece]:
        """Read what is certainly part of the answer."""
        place, self._answer_length = self._answer_length, self._answer_length + len(text)
        if self._tools is not None:
            return self._placed(self._tools.feed(text))
        return [Answer(text, (self._answer_begin or 0) + place)] if text else []

    def _placed(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The same with places in the whole text instead of the answer's."""
        begin = self._answer_begin or 0
        return [Answer(piece.text, begin + piece.start) if isinstance(piece, Answer) else piece for piece in pieces]


def _tool_parser(request: pb.GenerateRequest, model: ServedModel) -> ToolCallParser | None:
    functions, notation = callable_functions(request), model.spec.parsers.tool_calls
    only_one = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls
    if requires_call(request):
        # The guide makes the model write the call alone, without the notation around it.
        return HermesParser(functions, only_one=only_one, opened=True)
    return _TOOL_PARSERS[notation](functions, only_one=only_one) if notation and functions else None
