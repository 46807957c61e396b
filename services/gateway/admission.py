"""Lets a request in: its key must be allowed to use the model, and have room for what the request needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request

from services.gateway import metrics
from services.gateway.auth import Caller, authenticate
from services.gateway.demand import Demand
from services.gateway.dependencies import dependencies
from services.gateway.errors import ApiError, restarting
from services.gateway.hang_up import ClientGoneError
from services.gateway.keys import Key
from services.gateway.lease import Lease, Leases
from services.gateway.limits import StaleKeyError, Subject
from services.gateway.redis_link import RedisAwayError
from services.gateway.refusal import headers
from services.gateway.workers import Workers

ASK_SECONDS: Final = 0.2
"""A place in the line is lost after a second without asking."""


async def admit(request: Request, caller: Caller, demand: Demand, workers: Workers[Any, Any]) -> Lease | Waiting:
    """The lease of a request, or its place in the line for one, if its key's tier lets it wait.

    `workers` are those that could answer it. Raises ApiError: 401, 403 for a model that the key may not use, 404 for one
    that there is not, 429, 503.
    """
    if caller.proof is not None:
        with suppress(StaleKeyError):
            return await _admit(request, caller, demand, workers)
        caller = Caller(await authenticate(request, dependencies(request).keyring))
    return await _admit(request, caller, demand, workers)


async def _admit(request: Request, caller: Caller, demand: Demand, workers: Workers[Any, Any]) -> Lease | Waiting:
    gateway = dependencies(request)
    try:
        check_model(caller.key, demand.model)
        # What somebody made up must not become a name in Redis.
        workers.check(demand.model)
        subject = gateway.tiers.subject(caller.key, demand.model)
    except ApiError:
        if caller.proof is None:
            raise
        # Who may not ask at all any more is to be told that, and nothing else.
        raise StaleKeyError from None
    waiting = Waiting(request, gateway.leases, replace(subject, proof=caller.proof), demand)
    await waiting.ask()
    if waiting.lease is None:
        return waiting
    # Whatever the answer will be, it says how the limits stand.
    request.state.limit_headers = waiting.lease.headers
    return waiting.lease


class Waiting:
    """A request that asks for a lease until it gets it, or has waited for too long."""

    def __init__(self, request: Request, leases: Leases, subject: Subject, demand: Demand) -> None:
        """`ask` is to be called first."""
        self.lease: Lease | None = None
        self.headers: dict[str, str] = {}
        """What may be said about the limits before there is a lease."""
        self._request: Final = request
        self._leases: Final = leases
        self._subject = subject
        self._demand: Final = demand
        self._hold: Final = leases.new_hold(request.state.request_id)
        self._until: Final = time.monotonic() + subject.queue_seconds
        self._place = 0

    async def ask(self) -> None:
        """Ask once. Raises ApiError when it may not wait (any longer), StaleKeyError for a key that must be looked up."""
        try:
            decision = await self._leases.decide(self._subject, self._demand, self._hold)
        except RedisAwayError:
            if self._subject.proof is not None:
                raise StaleKeyError from None
            self.lease = self._leases.admit_alone(self._subject, self._demand, self._hold)
            return
        # It is proven, for as long as the request waits.
        self._subject = replace(self._subject, proof=None)
        if decision.ahead is not None and time.monotonic() < self._until:
            self._place = decision.ahead + 1
            self.headers = headers(decision, self._subject)
            return
        self.lease = self._leases.admitted(self._subject, self._demand, self._hold, decision)

    async def places(self) -> AsyncIterator[int]:
        """The request's place in the line, 1 for the next, at first and whenever it has changed; until it has its lease.

        Raises ApiError, and ClientGoneError when nobody waits for it any more.
        """
        said = 0
        if self.lease is not None:
            return
        with metrics.LIMITS_WAITING.track_inprogress():
            while self.lease is None:
                if self._place != said:
                    said = self._place
                    yield said
                try:
                    await asyncio.sleep(ASK_SECONDS)
                    if await self._request.is_disconnected():
                        raise ClientGoneError
                    await self.ask()
                except asyncio.CancelledError:
                    # The time that this gateway has left has ended.
                    raise restarting() from None

    async def get(self) -> Lease:
        """The lease, when it is there. Raises as `places` does."""
        async for _ in self.places():
            pass
        assert self.lease is not None  # noqa: S101  # the places end with it
        return self.lease


def check_model(key: Key, model: str) -> None:
    """Raises ApiError (403) for a model that is not on the key's list."""
    if not key.may_use(model):
        allowed = ", ".join(sorted(key.models or ())) or "none"
        raise ApiError(
            403,
            f"This API key may not use the model {model[:128]!r}. It may use: {allowed}.",
            type="permission_error",
            param="model",
            code="model_not_allowed",
        )
