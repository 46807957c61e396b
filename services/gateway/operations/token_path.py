"""The way of a token through the gateway: from a worker's message to the socket, without waking the request's task.

The first and the last events of a generation, and everything for a client that is behind, are read by the task of the
request (`StreamReply.write`). Between them, that task sleeps, and the reader of the worker's stream calls `take_text`
for each token and `flush` at the end of a message: waking the task costs more than writing a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import PlainTextEncoder, StreamEncoder
from services.gateway.edge.direct_writer import DirectWriter
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.routing.event_sink import text_event


class TokenPath:
    """The way of the events of one streamed generation. It is an EventSink.

    It does in one function what `MeteredGeneration.count` and `StreamEncoder.encode` do, because a function call for
    each step of the way would cost as much as the steps.
    """

    def __init__(
        self, encoder: StreamEncoder, generation: MeteredGeneration, writer: DirectWriter, unsent: list[bytes]
    ) -> None:
        """Write the events of `generation` with `writer`, after those in `unsent`, to which they are added."""
        self.has_written = False
        """Set when something was written. The reader resets it."""
        self._encoder: Final = encoder
        self._generation: Final = generation
        self._produced: Final = generation.produced
        self._has_budget: Final = generation.has_budget
        self._writer: Final = writer
        self._unsent: Final = unsent
        self._is_ready = False
        """Set when the last write found a client that keeps up, so that `writer` need not be asked again."""
        frames = encoder.text_frames() if isinstance(encoder, PlainTextEncoder) else None
        self._frames: Final = None if generation.has_transcript else frames

    def take(self, events: Sequence[pb.Event]) -> bool:
        """See EventSink."""
        if not self._writer.ready or events[0].HasField("started") or events[-1].HasField("usage"):
            return False
        self._generation.count(events)
        self._unsent.append(self._encoder.encode(events))
        return True

    def take_text(self, text: str, tokens: int, now: float, is_reasoning: bool) -> bool:
        """See EventSink."""
        frames = self._frames
        if frames is None:
            return self.take([text_event(text, tokens, is_reasoning=is_reasoning)])
        if not self._is_ready and not self._writer.ready:
            return False
        self._produced.completion += tokens
        if tokens:
            self._generation.note_gap(now, tokens)
        if text:
            if is_reasoning:
                self._produced.reasoning += tokens
            self._unsent.append(orjson.dumps(text).join(frames.reasoning if is_reasoning else frames.content))
        if self._has_budget:
            self._generation.renew_if_needed()
        return True

    def flush(self) -> None:
        """See EventSink."""
        unsent = self._unsent
        if unsent:
            data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
            unsent.clear()
            # An empty chunk would end the body.
            if data:
                self.has_written = True
                self._is_ready = self._writer.write(data)
