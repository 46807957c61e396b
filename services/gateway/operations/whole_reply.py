"""The reply to a request for a generation that is sent when it is complete."""

from __future__ import annotations

from typing import Final, Generic

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import C, GenerationDialect, ResponseHead
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.json_reply import JsonReply


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
        try:
            async for events in result.events():
                collected.add(events)
            collected.ended_by = result.ended_by
        finally:
            result.close()
        document = self._dialect.response(self._call, self._head, collected)
        await self._send(document, limits, ignored=self._call.all_ignored(result.generation.ignored_parameters))
