"""The reply to a request for an answer that is sent when it is whole."""

from __future__ import annotations

from typing import Final, Generic

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import C, GenerationDialect, ResponseHead
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.json_reply import JsonReply


class WholeAnswerReply(JsonReply[MeteredGeneration], Generic[C]):
    """Collects the answer, and sends it."""

    def __init__(self, dialect: GenerationDialect[C], exchange: Exchange, call: C, head: ResponseHead) -> None:
        """Reply to `call`, which is without its prompt: the answer may take long."""
        super().__init__(dialect, exchange)
        self._generation_dialect: Final = dialect
        self._call: Final = call
        self._head: Final = head

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Send the whole answer. Raises ApiError and ClientGoneError when it breaks off."""
        collected = ResponseCollector(self._call.choices)
        try:
            async for events in result.events():
                collected.add(events)
            collected.ended_by = result.ended_by
        finally:
            result.close()
        document = self._generation_dialect.whole(self._call, self._head, collected)
        await self._send(document, limits, ignored=self._call.all_ignored(result.generation.ignored_parameters))
