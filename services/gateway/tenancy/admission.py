"""Admission: a request's key must be allowed to use the model, and have room for what the request needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final

from services.gateway import metrics
from services.gateway.disconnect import ClientGoneError, Disconnect
from services.gateway.errors import ApiError, ErrorKind, restarting
from services.gateway.limit_status import NO_LIMITS, RateLimits
from services.gateway.record import Outcome, RequestRecord
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import limit_script
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_cache import Caller, KeyCache, keys_unknown
from services.gateway.tenancy.limit_script import StaleKeyError, Subject
from services.gateway.tenancy.rate_limit_errors import rate_limits, rejected
from services.gateway.tenancy.reservation import Reservation, Reservations
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.token_estimate import TokenEstimate

LOOK_UPS: Final = 10
"""Of a key that is changed again and again."""
ASK_SECONDS: Final = 0.2
"""A position in the queue is lost after a second without asking."""


@dataclass(frozen=True)
class AdmissionControl:
    """What decides about requests."""

    link: RedisLink
    key_cache: KeyCache
    tiers: Tiers
    reservations: Reservations

    def gate(self, caller: Caller) -> Gate:
        """Return what a large body of the caller has to pass before it is read."""
        return Gate(self, caller)

    async def admit(
        self, caller: Caller, estimate: TokenEstimate, disconnect: Disconnect, record: RequestRecord
    ) -> Admission:
        """Ask once for what a request needs: it is admitted, or waits in the queue if its key's tier has one.

        Raises ApiError: 401, 403 for a model that the key may not use, 429, 503.
        """
        admission = Admission(self, caller, estimate, disconnect, record)
        await admission.ask()
        return admission


class Gate:
    """Rejects a key that is over a limit whatever its request needs, before a large body is read. Takes nothing."""

    def __init__(self, control: AdmissionControl, caller: Caller) -> None:
        """Check the key of `caller`."""
        self._control: Final = control
        self._caller: Final = caller

    async def check(self) -> None:
        """Raise ApiError: 401, 429."""
        control, caller = self._control, self._caller
        for _ in range(LOOK_UPS):
            try:
                subject = replace(control.tiers.subject(caller.key, ""), fingerprint=caller.fingerprint)
            except ApiError:
                return  # Admission reports what is wrong.
            try:
                decision = await control.link.run(partial(limit_script.peek, subject=subject))
            except RedisAwayError:
                return  # It is decided without Redis once the body is there.
            except StaleKeyError:
                caller = await authenticate(caller.secret, control.key_cache)
                continue
            if decision.rejection is not None:
                metrics.LIMITS_REJECTED.labels(decision.rejection.limit).inc()
                raise rejected(decision, subject, limit_script.ANYTHING)
            return


class Admission:
    """A request that asks until it is admitted, or has waited for too long; as a context, what settles it at the end.

    Each attempt checks the key's fingerprint. If it has changed, the key is looked up again, because it may have been
    revoked, have expired, or have other models and limits.
    """

    def __init__(
        self,
        control: AdmissionControl,
        caller: Caller,
        estimate: TokenEstimate,
        disconnect: Disconnect,
        record: RequestRecord,
    ) -> None:
        """`ask` is to be called first."""
        self.limits: RateLimits = NO_LIMITS
        """How the key's limits stood when it was asked last."""
        self._reservation: Reservation | None = None
        self._control: Final = control
        self._caller = caller
        self._estimate: Final = estimate
        self._record: Final = record
        self._disconnect: Final = disconnect
        self._reservation_id: Final = control.reservations.new_id(record.request_id)
        self._began: Final = time.monotonic()
        self._position = 0

    @property
    def reservation(self) -> Reservation:
        """What the request holds of its key's limits, once it does not wait any more."""
        assert self._reservation is not None  # noqa: S101  # `queue` ends with it
        return self._reservation

    async def __aenter__(self) -> Admission:
        """Have what the request holds given back at the end, whatever happens."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle, and have an error say how the limits stand."""
        if isinstance(error, ApiError) and error.limits is None:
            error.limits = self.limits
        if self._record.outcome is None:
            self._record.outcome = _outcome_with(error)
        if self._reservation is not None:
            await self._reservation.settle(self._record.outcome)

    async def ask(self) -> None:
        """Ask once. Raises ApiError when it may not wait (any longer), or its key may not ask at all."""
        fresh = False
        for _ in range(LOOK_UPS):
            try:
                await self._ask(fresh=fresh)
            except StaleKeyError:
                self._caller, fresh = await authenticate(self._caller.secret, self._control.key_cache), True
            else:
                return
        # It is changed again and again.
        raise keys_unknown()

    async def queue(self) -> AsyncIterator[int]:
        """Wait; yield the request's position in the queue, 1 for the next, at first and whenever it has changed.

        Yields nothing for a request that was admitted at once. Raises ApiError, and ClientGoneError.
        """
        if self._reservation is not None:
            return
        reported = 0
        with metrics.LIMITS_WAITING.track_inprogress():
            while self._reservation is None:
                if self._position != reported:
                    reported = self._position
                    yield reported
                try:
                    await asyncio.sleep(ASK_SECONDS)
                    self._disconnect.check()
                    await self.ask()
                except asyncio.CancelledError:
                    # Only the end of the gateway's grace period cancels a request.
                    raise restarting() from None

    async def _ask(self, *, fresh: bool) -> None:
        """`fresh`: the key was looked up for this."""
        try:
            subject = self._subject()
        except ApiError:
            if fresh:
                raise
            # A key that was revoked must get 401, and no hint about models or tiers.
            raise StaleKeyError from None
        reservations = self._control.reservations
        try:
            decision = await reservations.decide(subject, self._estimate, self._reservation_id)
        except RedisAwayError:
            # Nobody is admitted without Redis whose key was not looked up for that. One that is full can still be read.
            if not (fresh or self._caller.redis_was_away):
                raise StaleKeyError from None
            self._take(reservations.admit_alone(subject, self._estimate, self._reservation_id))
            return
        if decision.ahead is not None and time.monotonic() < self._began + subject.queue_seconds:
            self._position = decision.ahead + 1
            self.limits = rate_limits(decision, subject)
            return
        self._take(reservations.admitted(subject, self._estimate, self._reservation_id, decision))

    def _take(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self.limits = reservation.limits

    def _subject(self) -> Subject:
        check_model(self._caller.key, self._estimate.model)
        # Tiers may have changed since the request came.
        return replace(
            self._control.tiers.subject(self._caller.key, self._estimate.model), fingerprint=self._caller.fingerprint
        )


def check_model(key: Key, model: str) -> None:
    """Raise ApiError (403) for a model that is not on the key's list."""
    if not key.may_use(model):
        raise _not_allowed(model, ", ".join(sorted(key.models or ())) or "none")


def _not_allowed(model: str, allowed: str) -> ApiError:
    return ApiError(
        403,
        ErrorKind.PERMISSION,
        f"This API key may not use the model {model[:128]!r}. It may use: {allowed}.",
        field="model",
        code="model_not_allowed",
    )


def _outcome_with(error: BaseException | None) -> Outcome:
    """Return how a request has ended of which nothing more precise was noted."""
    match error:
        case None:
            return Outcome.COMPLETE
        case ApiError(status=status):
            return Outcome.REJECTED if status < 500 else Outcome.FAILED
        case ClientGoneError():
            return Outcome.CLIENT_GONE
        case asyncio.CancelledError():
            return Outcome.STOPPED
    return Outcome.FAILED
