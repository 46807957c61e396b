"""Where the events of a call go when they arrive, and the event that a text delta stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vilix.inference.v1 import inference_service_pb2 as pb


class EventSink(Protocol):
    """Takes events when they arrive, without waking the task that reads the call, which would cost more than a write.

    No method may wait. An exception in one of them ends only this call.
    """

    def take(self, events: Sequence[pb.Event]) -> bool:
        """Take events and return True, or leave them to the reader and return False. `flush` writes them."""
        ...

    def take_text(self, text: str, tokens: int, now: float, is_reasoning: bool) -> bool:
        """Take a text delta of the choice 0 like the event that it stands for. `now` is of `time.perf_counter`."""
        ...

    def flush(self) -> None:
        """Write the events that were taken."""
        ...


def text_event(text: str, tokens: int, *, is_reasoning: bool) -> pb.Event:
    """Return the event of a text delta of the choice 0."""
    delta = pb.Delta(token_count=tokens)
    if text and is_reasoning:
        delta.reasoning_content = text
    elif text:
        delta.content = text
    return pb.Event(delta=delta)
