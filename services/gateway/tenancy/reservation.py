"""Reservations of requests in their keys' limits: made once, renewed while the request runs, settled exactly once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway import metrics
from services.gateway.limit_status import NO_LIMITS, RateLimits, SpentBudget
from services.gateway.record import Outcome, RequestRecord
from services.gateway.redis.link import RedisAwayError, RedisLink, RedisRejectedError
from services.gateway.tenancy import limits_script, rate_limit_errors
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.limits import COSTS
from services.gateway.tenancy.limits_script import Decision, Produced, Progress, Renewal, ReservationId, Subject
from services.gateway.tenancy.receipt import receipt_of
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.end_tasks import end_tasks

AT_ONCE: Final = 32
"""The most reservations that are renewed together, which delays other commands on the connection."""
MAX_UNSETTLED: Final = 100_000
"""The most settlements that are kept while Redis is away."""
RETRY_SECONDS: Final = 0.5
_log: Final = logging.getLogger(__name__)


class Reservation:
    """The reservation of one admitted request."""

    def __init__(
        self,
        reservations: Reservations,
        subject: Subject,
        estimate: TokenEstimate,
        reservation_id: ReservationId,
        status: RateLimits,
    ) -> None:
        """Keep the reservation of `subject`. `status` is the state of the limits when the request was admitted."""
        self.subject: Final = subject
        self.estimate: Final = estimate
        self.reservation_id: Final = reservation_id
        self.limits: Final = status
        self.produced: Final = Produced()
        self.outcome = Outcome.STOPPED
        """The outcome of the request, once it was settled."""
        self.spent: SpentBudget | None = None
        """The budget that is used up before the generation is complete."""
        self._end_generation: Callable[[], object] | None = None
        # A generation whose maximum is reserved cannot exceed its budget.
        is_reserved = estimate.max_output is not None and estimate.max_output <= estimate.output
        self.has_budget: Final = not is_reserved and _has_budget(subject)
        self._renew_at = max(1, estimate.output // 2) if self.has_budget else None
        self._reservations: Final = reservations
        self._settlement: asyncio.Task[None] | None = None
        self.record: RequestRecord | None = None
        """The record of the request, for its receipt, until it is settled."""
        self.receipt = b""
        """The receipt, once the request was settled; empty for none."""

    def end_generation_with(self, end: Callable[[], object]) -> None:
        """Call `end` when a budget is used up, or now if one already is."""
        self._end_generation = end
        if self.spent is not None:
            end()

    def renewed(self, renewal: Renewal, *, completion: int) -> None:
        """Note the result of a renewal that billed `completion` output tokens."""
        if self.has_budget:
            self._renew_at = completion + max(1, renewal.credit // 2)
        if renewal.spent is not None and self.spent is None and self._settlement is None:
            self.spent = renewal.spent
            if self._end_generation is not None:
                self._end_generation()

    def count(self, events: Iterable[pb.Event]) -> None:
        """Count the tokens of a worker's events."""
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    tokens = event.delta.token_count
                    self.produced.completion += tokens
                    if event.delta.HasField("reasoning_content"):
                        self.produced.reasoning += tokens
                case "started":
                    # The next renewal replaces the estimate by this count.
                    self.produced.prompt = event.started.prompt_tokens
                    self.produced.cached = event.started.cached_tokens
                case "usage":
                    usage = event.usage
                    self.produced.prompt = usage.prompt_tokens
                    self.produced.completion = usage.completion_tokens
                    self.produced.cached = usage.cached_tokens
                    self.produced.reasoning = usage.reasoning_tokens
        self.renew_if_needed()

    def renew_if_needed(self) -> None:
        """Renew the reservation if its tokens will soon be used up. To be called when `produced` has grown."""
        if self._renew_at is not None and self.produced.completion >= self._renew_at:
            # Renew before the reserved tokens are used up, to reserve more of the budget or end the generation in time.
            self._renew_at = None
            self._reservations.renew_soon(self)

    def settle(self, outcome: Outcome) -> asyncio.Future[None]:
        """Release the reservation and bill the produced tokens. Only the first call does so; all can be awaited."""
        if self._settlement is None:
            self.outcome = outcome
            if self.record is not None and self.reservation_id.receipts:
                self.record.receipt.is_settled = True
                self.receipt = receipt_of(
                    self.record, outcome=outcome, produced=self.produced, price=self.subject.price
                )
            # While Redis is away, many reservations may be kept.
            self.record = None
            self._end_generation = None
            self._settlement = self._reservations.settle(self)
        # Cancelling the caller must not cancel the settlement.
        return self._settlement if self._settlement.done() else asyncio.shield(self._settlement)


def _has_budget(subject: Subject) -> bool:
    limits = (subject.limits, subject.model_limits)
    budgets = ("daily_tokens", "monthly_tokens", *(COSTS if subject.price is not None else ()))
    return any(getattr(each, name) for each in limits for name in budgets)


class Reservations:
    """The reservations of this gateway. `open` and `close` it."""

    def __init__(
        self,
        link: RedisLink,
        local: FallbackLimits,
        *,
        reservation_seconds: float,
        renew_seconds: float,
        reserve_output: int,
        receipts: int = 0,
    ) -> None:
        """Keep reservations, which expire after `reservation_seconds` unless renewed, every `renew_seconds`.

        Settlements write receipts, of which `receipts` are kept for a key.
        """
        self._link: Final = link
        self._local: Final = local
        self._reservation_seconds: Final = reservation_seconds
        self._renew_seconds: Final = renew_seconds
        self._reserve_output: Final = reserve_output
        self._receipts: Final = receipts
        self._live: Final[set[Reservation]] = set()
        self._running: Final[Counter[tuple[str, str]]] = Counter()
        self._unsettled: Final[deque[Reservation]] = deque()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._has_unsettled: Final = asyncio.Event()

    def open(self) -> None:
        """Begin to renew reservations, and to retry settlements that failed."""
        metrics.UNSETTLED.set_function(lambda: len(self._unsettled))
        self._loops = [asyncio.create_task(self._keep_renewing()), asyncio.create_task(self._keep_settling())]

    async def close(self) -> None:
        """Settle all reservations, as far as Redis is available."""
        await end_tasks(*self._loops)
        for reservation in list(self._live):
            reservation.settle(Outcome.STOPPED)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settle_again()
        if self._unsettled:
            _log.error("usage was not recorded, because redis is away", extra={"requests": len(self._unsettled)})

    def new_id(self, request_id: str) -> ReservationId:
        """Return a new reservation id. It is random, because clients choose request ids and may repeat them."""
        return ReservationId(os.urandom(12).hex(), request_id, self._reservation_seconds, self._receipts)

    async def decide(self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Decision:
        """Return Redis's decision about a request. Raises RedisAwayError and StaleKeyError."""
        decision = await self._link.run(lambda redis: limits_script.admit(redis, subject, estimate, reservation_id))
        if self._link.rejection is None:
            # While Redis rejects writes, some decisions still succeed: keep the fallback's counts until it recovers.
            self._local.forget()
        return decision

    def admitted(
        self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId, decision: Decision
    ) -> Reservation:
        """Return the reservation that Redis made. Raises ApiError (429) if `decision` rejects the request."""
        if decision.rejection is not None:
            metrics.LIMITS_REJECTED.labels(decision.rejection.limit).inc()
            raise rate_limit_errors.rejected(decision, subject, estimate)
        return self._reservation(subject, estimate, reservation_id, rate_limit_errors.rate_limits(decision, subject))

    def admit_without_redis(
        self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId
    ) -> Reservation:
        """Return the reservation of a request that is admitted by the policy for a Redis that is away.

        Raises ApiError: 429, 503.
        """
        key_id = subject.key.id
        running = {"key": self._running[key_id, ""], "model": self._running[key_id, subject.model]}
        self._local.admit(subject, estimate, running)
        return self._reservation(subject, estimate, reservation_id, NO_LIMITS)

    def settle(self, reservation: Reservation) -> asyncio.Task[None]:
        """Begin to settle a reservation."""
        self._live.discard(reservation)
        self._count_running(reservation, -1)
        return self._begin(self._settle(reservation))

    def _reservation(
        self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId, status: RateLimits
    ) -> Reservation:
        reservation = Reservation(self, subject, estimate, reservation_id, status)
        self._live.add(reservation)
        self._count_running(reservation, 1)
        return reservation

    def _count_running(self, reservation: Reservation, change: int) -> None:
        for scope in ("", reservation.subject.model):
            counted = (reservation.subject.key.id, scope)
            self._running[counted] += change
            if not self._running[counted]:
                self._running.pop(counted)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            live = list(self._live)
            for first in range(0, len(live), AT_ONCE):
                await self._renew(live[first : first + AT_ONCE])

    def renew_soon(self, reservation: Reservation) -> None:
        """Renew a reservation now."""
        self._begin(self._renew([reservation]))

    async def _renew(self, reservations: Sequence[Reservation]) -> None:
        live: list[Reservation] = []
        completions: list[int] = []

        async def renew(redis: Redis) -> list[Renewal | BaseException]:
            # This may have waited for other commands.
            live.extend(each for each in reservations if each in self._live)
            completions.extend(each.produced.completion for each in live)
            progress = [Progress(each.subject, each.estimate, each.reservation_id, each.produced) for each in live]
            return await limits_script.renew(redis, progress, reserve_output=self._reserve_output)

        with suppress(RedisAwayError):  # The next renewal, or the settlement, bills the tokens.
            renewals = await self._link.run_many(renew)
            for reservation, completion, renewal in zip(live, completions, renewals, strict=True):
                if renewal is not None:
                    reservation.renewed(renewal, completion=completion)

    async def _settle(self, reservation: Reservation) -> None:
        if self._link.rejection is not None:
            # A full Redis needs its memory for admissions and usage.
            reservation.receipt = b""
        try:
            await self._link.run(
                lambda redis: limits_script.settle(
                    redis,
                    reservation.subject,
                    reservation.reservation_id,
                    reservation.produced,
                    outcome=reservation.outcome,
                    receipt=reservation.receipt,
                )
            )
        except RedisAwayError as error:
            if isinstance(error, RedisRejectedError):
                reservation.receipt = b""
            if len(self._unsettled) < MAX_UNSETTLED:
                self._unsettled.append(reservation)
                self._has_unsettled.set()
            else:
                _log.error(
                    "usage is lost: redis has been away for too long", extra={"key_id": reservation.subject.key.id}
                )

    async def _keep_settling(self) -> None:
        while True:
            await self._has_unsettled.wait()
            await asyncio.sleep(RETRY_SECONDS)
            self._has_unsettled.clear()
            await self._settle_again()
            if self._unsettled:
                self._has_unsettled.set()

    async def _settle_again(self) -> None:
        for _ in range(len(self._unsettled)):
            if self._link.away or self._link.rejection is not None:
                return
            await self._settle(self._unsettled.popleft())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
