"""What the pipeline asks of an endpoint, of the operation that a body asks for, and of the reply that it writes."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from services.gateway.dialects.dialect import Dialect
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits
from services.gateway.routing.pool import WorkerPool
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.gateway.wiring import Gateway

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Reply(Protocol[R_contra]):
    """Writes the response to one request, of which the result is the body."""

    async def queued(self, position: int, limits: RateLimits) -> None:
        """Tell the client its position in the queue, where the response has a way to."""
        ...

    async def write(self, result: R_contra, limits: RateLimits) -> None:
        """Write the response. Raises ApiError and ClientGoneError for a result that breaks off."""
        ...

    async def fail(self, error: ApiError) -> None:
        """Write an error into a response that has begun; raise it where none has."""
        ...


class Operation(Protocol[R]):
    """What one request asks for."""

    @property
    def model(self) -> str:
        """The id of the model that it names."""
        ...

    @property
    def stream(self) -> bool | None:
        """Whether the result is sent while it is made; None where it never is."""
        ...

    @property
    def estimate(self) -> TokenEstimate:
        """How many tokens it is estimated to need."""
        ...

    @property
    def pool(self) -> WorkerPool[Any, Any]:
        """The workers that can do it."""
        ...

    def reply(self, exchange: Exchange) -> Reply[R]:
        """Return what writes the response."""
        ...

    async def run(self, exchange: Exchange, reservation: Reservation) -> R:
        """Have a worker do it, for as long as the client waits. Raises ApiError and ClientGoneError."""
        ...

    def use_callers_names(self, error: ApiError) -> None:
        """Name fields in an error as the caller does."""
        ...


class Endpoint(Protocol):
    """A POST endpoint of an API."""

    @property
    def dialect(self) -> Dialect:
        """The API."""
        ...

    def read(self, body: Any, gateway: Gateway, *, strict: bool) -> Operation[Any]:
        """Return what a parsed body asks for; may run in a thread. `strict` rejects fields that have no influence.

        Raises ApiError (400).
        """
        ...
