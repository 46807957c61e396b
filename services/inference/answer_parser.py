"""A model's text to thoughts, answer and tool calls: the parsers of one choice, one behind the other."""

from __future__ import annotations

from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.guides import is_guided
from services.inference.hermes_calls import HermesParser
from services.inference.minimax_calls import MiniMaxParser
from services.inference.pieces import Answer, Piece, Thought
from services.inference.prompt import Prompt
from services.inference.reasoning import ReasoningParser
from services.inference.served_model import ServedModel
from services.inference.tool_calls import ToolCallParser
from services.inference.tools import callable_functions, demands_call

_TOOL_PARSERS: Final[dict[str, type[ToolCallParser]]] = {"hermes": HermesParser, "minimax": MiniMaxParser}


class AnswerParser:
    """Reads one choice's text in pieces of any size."""

    def __init__(self, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Of a checked request. What its model or the request does not use is not looked for."""
        parsers = model.spec.parsers
        thinks = (
            parsers.reasoning and not request.reasoning.in_content and (prompt.thought_apart or not is_guided(request))
        )
        self._reasoning = ReasoningParser(opened=prompt.opens_thought) if thinks else None
        self._tools: Final = _tool_parser(request, model)
        self._hides_thoughts: Final = request.reasoning.exclude

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

    def feed(self, text: str) -> list[Piece]:
        """Read the next piece of text."""
        return self._parse_calls([Answer(text)] if self._reasoning is None else self._reasoning.feed(text))

    def close(self) -> list[Piece]:
        """Read the end of the text."""
        pieces = self._parse_calls([] if self._reasoning is None else self._reasoning.close())
        return pieces + ([] if self._tools is None else self._tools.close())

    def _parse_calls(self, pieces: list[Piece]) -> list[Piece]:
        parsed: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, Thought):
                parsed += [] if self._hides_thoughts else [piece]
            elif self._tools is None or not isinstance(piece, Answer):
                parsed.append(piece)
            else:
                parsed += self._tools.feed(piece.text)
        return parsed


def _tool_parser(request: pb.GenerateRequest, model: ServedModel) -> ToolCallParser | None:
    functions, notation = callable_functions(request), model.spec.parsers.tool_calls
    only_one = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls
    if demands_call(request):
        # The guide makes the model write the call alone, without the notation around it.
        return HermesParser(functions, only_one=only_one, opened=True)
    return _TOOL_PARSERS[notation](functions, only_one=only_one) if notation and functions else None
