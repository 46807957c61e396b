"""The reply to a request for a generation that is sent when it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import C, GenerationDialect, ResponseHead
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.json_reply import JsonReply
from services.gateway.routing.event_sink import text_event


class WholeReply(JsonReply[GenerationDialect[C], MeteredGeneration], Generic[C]):
    """Collects a generation, and sends it as one JSON document."""

    def __init__(self, dialect: GenerationDialect[C], exchange: Exchange, call: C, head: ResponseHead) -> None:
        """Reply to `call`, which has no prompt, because a generation may take long and prompts may be large."""
        super().__init__(dialect, exchange)
        self._call: Final = call
        self._head: Final = head

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Collect and send the generation. Raises ApiError and ClientGoneError if it breaks off."""
        collected = ResponseCollector(self._call.choices)
        result.generation.offer_tokens_to(_Collecting(collected, result))
        try:
            async for events in result.events():
                collected.add(events)
            collected.ended_by = result.ended_by
        finally:
            result.close()
        document = self._dialect.response(self._call, self._head, collected)
        await self._send(document, limits, self._call.reports(result.generation.started))


class _Collecting:
    """Collects what arrives between the first and the last group of events, while the task of the request sleeps."""

    def __init__(self, collected: ResponseCollector, generation: MeteredGeneration) -> None:
        self._collected: Final = collected
        self._generation: Final = generation

    def take(self, events: Sequence[pb.Event]) -> bool:
        """See EventSink."""
        if events[0].HasField("started") or events[-1].HasField("usage"):
            return False
        self._generation.count(events)
        self._collected.add(events)
        return True

    def take_text(self, text: str, tokens: int, now: float, is_reasoning: bool) -> bool:
        """See EventSink."""
        if self._generation.has_transcript:
            return self.take([text_event(text, tokens, is_reasoning=is_reasoning)])
        self._generation.count_text(tokens, now, is_reasoning=is_reasoning and bool(text))
        self._collected.add_text(text, is_reasoning=is_reasoning)
        return True

    def flush(self) -> None:
        """See EventSink."""
