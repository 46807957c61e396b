"""A model's text to thoughts, answer and tool calls: the parsers of one choice, one behind the other."""

from __future__ import annotations

from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.guides import is_guided
from services.inference.pieces import Answer, Piece, Thought
from services.inference.prompt import Prompt
from services.inference.reasoning import ReasoningParser
from services.inference.served_model import ServedModel
from services.inference.tool_calls import HermesParser, MiniMaxParser, ToolCallParser
from services.inference.tools import callable_functions, demands_call

_TOOL_PARSERS: Final[dict[str, type[ToolCallParser]]] = {"hermes": HermesParser, "minimax": MiniMaxParser}


class AnswerParser:
    """Reads one choice's text in pieces of any size."""

    def __init__(self, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Of a checked request. What its model or the request does not use is not looked for."""
        parsers = model.spec.parsers
        functions = callable_functions(request)
        thinks = (
            parsers.reasoning and not request.reasoning.in_content and (prompt.thought_apart or not is_guided(request))
        )
        self._reasoning = ReasoningParser(opened=prompt.opens_thought) if thinks else None
        self._tools = _TOOL_PARSERS[parsers.tool_calls](functions) if parsers.tool_calls and functions else None
        self._is_forced: Final = demands_call(request)
        if self._is_forced:
            # The guide makes the model write the call alone, without the notation around it.
            self._tools = HermesParser(functions)
            self._tools.feed(HermesParser.open_tag)
        self._hides_thoughts: Final = request.reasoning.exclude
        self._one_call: Final = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls

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
        return self._one_call and self.called

    def feed(self, text: str) -> list[Piece]:
        """Read the next piece of text."""
        return self._parse_calls([Answer(text)] if self._reasoning is None else self._reasoning.feed(text))

    def close(self) -> list[Piece]:
        """Read the end of the text."""
        pieces = self._parse_calls([] if self._reasoning is None else self._reasoning.close())
        if self._is_forced:
            return pieces + self._close_forced()
        return pieces + ([] if self._tools is None or self.ended else self._tools.close())

    def _close_forced(self) -> list[Piece]:
        assert self._tools is not None  # noqa: S101  # a call that is demanded has its parser
        # Of a call that was cut off before its name, the notation was never the model's.
        return [
            Answer(piece.text.removeprefix(HermesParser.open_tag)) if isinstance(piece, Answer) else piece
            for piece in self._tools.close()
        ]

    def _parse_calls(self, pieces: list[Piece]) -> list[Piece]:
        parsed: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, Thought):
                parsed += [] if self._hides_thoughts else [piece]
            elif self._tools is None or not isinstance(piece, Answer):
                parsed.append(piece)
            elif not self.ended:
                parsed += self._tools.feed(piece.text)
        return [piece for piece in parsed if not isinstance(piece, Answer) or piece.text]
