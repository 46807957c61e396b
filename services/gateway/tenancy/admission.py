"""Admission: a request's key must be allowed to use the model, and its limits must allow what the request needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final

from services.gateway import metrics
from services.gateway.disconnect import ClientGoneError, Disconnect
from services.gateway.errors import ApiError, ErrorKind, restarting_if_cancelled
from services.gateway.limit_status import NO_LIMITS, RateLimits
from services.gateway.record import CLIENT_CLOSED_REQUEST, RequestRecord, outcome_of
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import limits_script
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_cache import Caller, KeyCache, keys_unknown
from services.gateway.tenancy.limits_script import StaleKeyError, Subject
from services.gateway.tenancy.prices import Prices
from services.gateway.tenancy.rate_limit_errors import rate_limits, rejected
from services.gateway.tenancy.reservation import Reservation, Reservations
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.messages.message import Message

LOOK_UPS: Final = 10
"""The most lookups, for one request, of a key that changes again and again."""
ASK_SECONDS: Final = 0.2
"""Seconds between two attempts of a queued request. Without an attempt for a second, it loses its position."""


@dataclass(frozen=True)
class AdmissionControl:
    """Admits requests or rejects them."""

    link: RedisLink
    key_cache: KeyCache
    tiers: Tiers
    reservations: Reservations
    prices: Prices

    def gate(self, caller: Caller) -> BodyGate:
        """Return the gate that the caller's request must pass before a large body is read."""
        return BodyGate(self, caller)

    async def admit(
        self, caller: Caller, estimate: TokenEstimate, disconnect: Disconnect, record: RequestRecord
    ) -> Admission:
        """Make a first attempt to admit a request. If it must wait and its tier has a queue, it is queued.

        Args:
            caller: The key, which may have been looked up a while ago.
            estimate: The request's token estimate.
            disconnect: Ends the wait in the queue when the client disconnects.
            record: The request's record.

        Raises:
            ApiError: The key was revoked (401), may not use the model (403), is over a limit (429), or cannot be
                checked (503).
        """
        admission = Admission(self, caller, estimate, disconnect, record)
        await admission.ask()
        return admission


class BodyGate:
    """Rejects a key whose limits allow no request at all, before a large body is read. Reserves nothing."""

    def __init__(self, control: AdmissionControl, caller: Caller) -> None:
        """Check the key of `caller`."""
        self._control: Final = control
        self._caller: Final = caller

    async def check(self) -> None:
        """Raise ApiError: 401, 429."""
        control, caller = self._control, self._caller
        for _ in range(LOOK_UPS):
            try:
                subject = control.tiers.subject(caller.key, "", caller.fingerprint)
            except ApiError:
                return  # Admission reports the error.
            try:
                decision = await control.link.run(partial(limits_script.peek, subject=subject))
            except RedisAwayError:
                return  # Admission decides without Redis, once the body is complete.
            except StaleKeyError:
                caller = await authenticate(caller.credential, control.key_cache)
                continue
            if decision.rejection is not None:
                metrics.LIMITS_REJECTED.labels(decision.rejection.limit).inc()
                raise rejected(decision, subject, limits_script.ANYTHING)
            return


class Admission:
    """The admission of one request: attempts until it is admitted or rejected. As a context, it settles at the end.

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
        """Prepare. `ask` must be called first."""
        self.limits: RateLimits = NO_LIMITS
        """The state of the key's limits at the last attempt."""
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
    def is_admitted(self) -> bool:
        """Whether the request has a reservation."""
        return self._reservation is not None

    @property
    def reservation(self) -> Reservation:
        """The request's reservation, once `queue` has ended."""
        assert self._reservation is not None  # noqa: S101  # `queue` ends with a reservation
        return self._reservation

    async def __aenter__(self) -> Admission:
        """Return the admission. Its reservation is settled at the end of the context in any case."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle the reservation, and add the state of the limits to an ApiError."""
        if isinstance(error, ApiError):
            error.limits = error.limits or self.limits
            self._record.receipt.note_error(error.message.id, error.status)
        if self._record.outcome is None:
            self._record.outcome = outcome_of(_status_with(error))
        if self._reservation is not None:
            await self._reservation.settle(self._record.outcome)

    async def ask(self) -> None:
        """Make one attempt. Raises ApiError if the request may not wait (any longer), or its key is not valid."""
        fresh = False
        for _ in range(LOOK_UPS):
            try:
                await self._ask(fresh=fresh)
            except StaleKeyError:
                self._caller, fresh = await authenticate(self._caller.credential, self._control.key_cache), True
            else:
                return
        # The key changes again and again.
        raise keys_unknown()

    async def queue(self) -> AsyncIterator[int]:
        """Wait until the request is admitted, and yield its position in the queue whenever it changes; 1 is the next.

        Yields nothing for a request that was admitted at once. Raises ApiError and ClientGoneError.
        """
        if self._reservation is not None:
            return
        reported = 0
        with metrics.LIMITS_WAITING.track_inprogress():
            while self._reservation is None:
                if self._position != reported:
                    reported = self._position
                    yield reported
                with restarting_if_cancelled():
                    await asyncio.sleep(ASK_SECONDS)
                    self._disconnect.check()
                    await self.ask()

    async def _ask(self, *, fresh: bool) -> None:
        """Make one attempt. `fresh` tells that the key was looked up for this attempt."""
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
            # Without a decision of Redis, the key must have been looked up: a Redis that is full can still be read.
            if not (fresh or self._caller.redis_was_away):
                raise StaleKeyError from None
            self._take(reservations.admit_without_redis(subject, self._estimate, self._reservation_id))
            return
        if decision.ahead is not None and time.monotonic() < self._began + subject.queue_seconds:
            self._position = decision.ahead + 1
            notes = self._record.receipt
            notes.queued_at = notes.queued_at or time.perf_counter()
            self.limits = rate_limits(decision, subject)
            return
        self._take(reservations.admitted(subject, self._estimate, self._reservation_id, decision))

    def _take(self, reservation: Reservation) -> None:
        self._reservation = reservation
        reservation.record = self._record
        self._record.receipt.admitted_at = time.perf_counter()
        self.limits = reservation.limits
        metrics.ADMISSION_SECONDS.of(self._estimate.model).observe(time.monotonic() - self._began)

    def _subject(self) -> Subject:
        check_model(self._caller.key, self._estimate.model)
        # Tiers may have changed since the last attempt.
        price = self._control.prices.of(self._estimate.model)
        return self._control.tiers.subject(self._caller.key, self._estimate.model, self._caller.fingerprint, price)


def check_model(key: Key, model: str) -> None:
    """Raise ApiError (403) for a model that is not on the key's list."""
    if not key.may_use(model):
        raise _not_allowed(model, ", ".join(sorted(key.models or ())))


def _not_allowed(model: str, allowed: str) -> ApiError:
    return ApiError(
        403,
        ErrorKind.PERMISSION,
        Message(
            "model_not_allowed" if allowed else "no_model_allowed",
            field="model",
            model=repr(model[:128]),
            allowed=allowed,
        ),
        code="model_not_allowed",
    )


def _status_with(error: BaseException | None) -> int:
    """Return the HTTP status that stands for the end of a request with `error`; 0 for one that was stopped."""
    match error:
        case None:
            return 200
        case ApiError(status=status):
            return status
        case ClientGoneError():
            return CLIENT_CLOSED_REQUEST
        case asyncio.CancelledError():
            return 0
    return 500
