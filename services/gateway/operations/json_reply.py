"""Replies that are one JSON document, sent when it is complete."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from services.gateway.dialects.dialect import Dialect
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits

D = TypeVar("D", bound=Dialect)
R = TypeVar("R")
JSON: Final = {"content-type": "application/json"}


class JsonReply(ABC, Generic[D, R]):
    """Base of replies that are one JSON document: a result `R` in the format of a dialect `D`."""

    def __init__(self, dialect: D, exchange: Exchange) -> None:
        """Reply to the request of `exchange` in the API `dialect`."""
        self._dialect: Final = dialect
        self._exchange: Final = exchange

    async def queued(self, position: int, limits: RateLimits) -> None:
        """Do nothing, because nothing can be sent before the document."""

    @abstractmethod
    async def write(self, result: R, limits: RateLimits) -> None:
        """Send the document."""

    async def fail(self, error: ApiError) -> None:
        """Raise the error, because no response has begun."""
        raise error

    async def _send(self, document: bytes, limits: RateLimits, reports: Mapping[str, str] | None = None) -> None:
        """Send the document with headers about limits, and `reports` about what the response leaves out."""
        await self._exchange.response.respond(200, {**self._headers(limits), **(reports or {})}, document)

    def _headers(self, limits: RateLimits) -> dict[str, str]:
        headers = self._dialect.response_headers(limits, request_id=self._exchange.record.request_id)
        return {**JSON, **headers}
