"""The way of a token through the worker: from a step of the engine to the message for the caller, without waiting.

The first and the last outputs of a generation, and everything for a caller that is behind, are read by the task of the
request (`InferenceServicer.generate`). Between them, that task sleeps, and the reader of the stream of Triton calls
`take` for each request that has tokens: waking the task would cost several times as much as the work for the token.
"""

from __future__ import annotations

from typing import Final

from services.inference.generation.answer_parser import TextKind
from services.inference.generation.choice import Choice
from services.inference.generation.generation import Generation
from services.inference.generation.usage import UsageCount
from services.inference.outlet import Outlet
from services.inference.parsing.segments import Reasoning, Text
from services.worker.triton_messages import EngineOutput


class TokenPath:
    """The way of the tokens of one choice."""

    def __init__(self, choice: Choice, generation: Generation, usage: UsageCount, outlet: Outlet) -> None:
        """Send the tokens of `choice`, a part of `generation`, to `outlet`, and count them in `usage`."""
        self._choice: Final = choice
        self._generation: Final = generation
        self._usage: Final = usage
        self._outlet: Final = outlet
        self._index: Final = choice.index

    def take(self, token_ids: list[int]) -> bool:
        """Send tokens and return True, or return False if the task of the request must read them."""
        outlet, index = self._outlet, self._index
        if outlet.credit <= 0 or not self._usage.has_started or not self._generation.claim(index):
            return False
        choice, count = self._choice, len(token_ids)
        self._usage.note_tokens(count)
        texts = choice.texts(token_ids)
        text = texts[0] if count == 1 else "".join(texts)
        kind = TextKind.NONE if index else choice.take_plain(text, count)
        if kind is TextKind.NONE:
            self._parse(token_ids, texts)
        elif kind is TextKind.HIDDEN:
            outlet.send_text("", count, is_reasoning=False)
        else:
            outlet.send_text(text, count, is_reasoning=kind is TextKind.REASONING)
        return True

    def _parse(self, token_ids: list[int], texts: list[str]) -> None:
        """Parse text that is not plain, and send what is certain."""
        choice, outlet, count = self._choice, self._outlet, len(token_ids)
        segments = choice.parse(texts, at_end=False)
        if not self._index and not choice.stopped and len(segments) <= 1:
            segment = segments[0] if segments else Text("")
            if isinstance(segment, Text | Reasoning):
                outlet.send_text(segment.text, count, is_reasoning=isinstance(segment, Reasoning))
                return
        outlet.send_events(choice.events(EngineOutput(token_ids, None, None, None, None, None), texts, segments))
        if choice.stopped:
            # The text has ended, for example at a stop string, which the engine does not know.
            self._generation.stop(self._index)
