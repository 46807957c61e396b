"""Lets a request in: its key must be allowed to use the model, and have room for what the request needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request

from services.gateway import metrics
from services.gateway.dependencies import dependencies
from services.gateway.edge.hang_up import ClientGoneError
from services.gateway.errors import ApiError, restarting
from services.gateway.redis.redis_link import RedisAwayError
from services.gateway.routing.workers import Workers
from services.gateway.tenancy import limits
from services.gateway.tenancy.auth import Caller, look_up
from services.gateway.tenancy.demand import Demand
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.keyring import keys_unknown
from services.gateway.tenancy.lease import Lease
from services.gateway.tenancy.limits import StaleKeyError, Subject
from services.gateway.tenancy.refusal import headers, refused

LOOK_UPS: Final = 10
"""Of a key that is changed again and again."""
ASK_SECONDS: Final = 0.2
"""A place in the line is lost after a second without asking."""


async def refuse_early(request: Request, caller: Caller) -> None:
    """Refuse a key that is over a limit whatever its request needs, before a large body is read. Takes nothing.

    Raises ApiError: 401, 429.
    """
    gateway = dependencies(request)
    for _ in range(LOOK_UPS):
        try:
            subject = replace(gateway.tiers.subject(caller.key, ""), proof=caller.proof)
        except ApiError:
            return  # `admit` says what is wrong.
        try:
            decision = await gateway.link.run(partial(limits.peek, subject=subject))
        except RedisAwayError:
            return  # It is decided without Redis once the body is there.
        except StaleKeyError:
            caller = await look_up(request, gateway.keyring)
            continue
        if decision.refusal is not None:
            metrics.LIMITS_REFUSED.labels(decision.refusal.limit).inc()
            raise refused(decision, subject, limits.ANYTHING)
        return


async def admit(request: Request, caller: Caller, demand: Demand, workers: Workers[Any, Any]) -> Lease | Waiting:
    """The lease of a request, or its place in the line for one, if its key's tier lets it wait.

    `workers` are those that could answer it. Raises ApiError: 401, 403 for a model that the key may not use, 404 for one
    that there is not, 429, 503.
    """
    waiting = Waiting(request, caller, demand, workers)
    await waiting.ask()
    if waiting.lease is None:
        return waiting
    # Whatever the answer will be, it says how the limits stand.
    request.state.limit_headers = waiting.lease.headers
    return waiting.lease


class Waiting:
    """A request that asks for a lease until it gets it, or has waited for too long.

    Each time it is proven that the key is what it was. One that is not is looked up again: it may have been revoked, have
    expired, or have other models and limits.
    """

    def __init__(self, request: Request, caller: Caller, demand: Demand, workers: Workers[Any, Any]) -> None:
        """`ask` is to be called first."""
        gateway = dependencies(request)
        self.lease: Lease | None = None
        self.headers: dict[str, str] = {}
        """What may be said about the limits before there is a lease."""
        self._request: Final = request
        self._caller = caller
        self._demand: Final = demand
        self._workers: Final = workers
        self._leases: Final = gateway.leases
        self._tiers: Final = gateway.tiers
        self._keyring: Final = gateway.keyring
        self._hold: Final = self._leases.new_hold(request.state.request_id)
        self._began: Final = time.monotonic()
        self._place = 0

    async def ask(self) -> None:
        """Ask once. Raises ApiError when it may not wait (any longer), or its key may not ask at all."""
        fresh = False
        for _ in range(LOOK_UPS):
            try:
                await self._ask(fresh=fresh)
            except StaleKeyError:
                self._caller, fresh = await look_up(self._request, self._keyring), True
            else:
                return
        # It is changed again and again.
        raise keys_unknown()

    async def _ask(self, *, fresh: bool) -> None:
        try:
            subject = self._subject()
        except ApiError:
            if fresh:
                raise
            # Who may not ask at all any more is to be told that, and nothing else.
            raise StaleKeyError from None
        try:
            decision = await self._leases.decide(subject, self._demand, self._hold)
        except RedisAwayError:
            # Nobody is let in without Redis whose key was not looked up for that. One that is full can still be read.
            if not (fresh or self._caller.redis_was_away):
                raise StaleKeyError from None
            self.lease = self._leases.admit_alone(subject, self._demand, self._hold)
            return
        if decision.ahead is not None and time.monotonic() < self._began + subject.queue_seconds:
            self._place = decision.ahead + 1
            self.headers = headers(decision, subject)
            return
        self.lease = self._leases.admitted(subject, self._demand, self._hold, decision)

    def _subject(self) -> Subject:
        check_model(self._caller.key, self._demand.model)
        # What somebody made up must not become a name in Redis.
        self._workers.check(self._demand.model)
        # Tiers may have changed since the request came.
        return replace(self._tiers.subject(self._caller.key, self._demand.model), proof=self._caller.proof)

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
