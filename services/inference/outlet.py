"""The outlet of a call, to which its events are sent without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vilix.inference.v1 import inference_service_pb2 as pb


class Outlet(Protocol):
    """Sends the events of one call. No method waits."""

    credit: int
    """The number of outputs that the caller can take now."""

    def send_text(self, text: str, tokens: int, *, is_reasoning: bool) -> None:
        """Send a delta of the choice 0 without log probabilities. It uses up a credit."""
        ...

    def send_events(self, events: Sequence[pb.Event]) -> None:
        """Send events. It uses up a credit."""
        ...
