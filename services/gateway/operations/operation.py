"""The interfaces that the pipeline uses: an endpoint, the operation of a request, and the reply to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from services.gateway.dialects.dialect import Dialect
from services.gateway.edge.body import Gate, RequestBody
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits
from services.gateway.routing.pool import WorkerPool
from services.gateway.tenancy.key_cache import Caller
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Reply(Protocol[R_contra]):
    """Writes the response to one request."""

    async def queued(self, position: int, limits: RateLimits) -> None:
        """Tell the client its position in the queue, if the kind of response allows it."""
        ...

    async def write(self, result: R_contra, limits: RateLimits) -> None:
        """Write `result` as the response. Raises ApiError and ClientGoneError if the result breaks off."""
        ...

    async def fail(self, error: ApiError) -> None:
        """Write an error into a response that has begun. Raise it if none has begun."""
        ...


class Operation(Protocol[R]):
    """The work that one request asks for."""

    @property
    def model(self) -> str:
        """The id of the model that the request names."""
        ...

    @property
    def stream(self) -> bool | None:
        """Whether the client asks for a stream; None if the API has no streams."""
        ...

    @property
    def estimate(self) -> TokenEstimate:
        """The token estimate of the request."""
        ...

    @property
    def pool(self) -> WorkerPool[Any, Any, Any]:
        """The workers of the kind that can do the work."""
        ...

    @property
    def field_name(self) -> Callable[[str], str]:
        """The function that returns the caller's name for the path of a worker's field."""
        ...

    async def recall(self, caller: Caller, body: RequestBody) -> None:
        """Find what the request refers to, and count it as a part of `body`.

        Raises ApiError if that does not exist, is not the caller's, or is too large.
        """
        ...

    async def detach(
        self, exchange: Exchange, caller: Caller, gate: Gate, perform: Callable[[Exchange], Awaitable[None]]
    ) -> bool:
        """Have `perform` called for another exchange, without the client, and respond to the client.

        Return False, and do nothing, if the work is to be done for the client itself. Raises ApiError, also for a
        request that does not pass `gate`.
        """
        ...

    def reply(self, exchange: Exchange) -> Reply[R]:
        """Return the writer of the response."""
        ...

    async def run(self, exchange: Exchange, reservation: Reservation) -> R:
        """Have a worker do the work, and return what the reply writes: the result, or one that is still being made.

        Raises ApiError and ClientGoneError.
        """
        ...


class SelfContained:
    """Base of operations whose requests refer to nothing, and which are done for their clients."""

    async def recall(self, caller: Caller, body: RequestBody) -> None:
        """Do nothing."""

    async def detach(
        self, exchange: Exchange, caller: Caller, gate: Gate, perform: Callable[[Exchange], Awaitable[None]]
    ) -> bool:
        """Return False."""
        return False


class Endpoint(Protocol):
    """A POST endpoint of an API."""

    @property
    def dialect(self) -> Dialect:
        """The API's dialect."""
        ...

    def read(self, body: Any, *, strict: bool, tenant: str) -> Operation[Any]:
        """Return the operation that a parsed body asks for. It may run in a thread.

        `strict` rejects fields that would have no effect. What the gateway has signed for other tenants is not read as
        genuine. Raises ApiError (400).
        """
        ...
