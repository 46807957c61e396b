"""What a running request holds of its key's limits: taken once, renewed while it runs, settled exactly once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway import metrics
from services.gateway.limit_status import NO_LIMITS, RateLimits, SpentBudget
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import limit_script, rate_limit_errors
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.limit_script import Decision, Produced, Renewal, ReservationId, Subject
from services.gateway.tenancy.token_estimate import TokenEstimate

AT_ONCE: Final = 32
MAX_UNSETTLED: Final = 100_000
RETRY_SECONDS: Final = 0.5
_log: Final = logging.getLogger(__name__)


class Reservation:
    """A request that was let in."""

    def __init__(
        self,
        reservations: Reservations,
        subject: Subject,
        estimate: TokenEstimate,
        reservation_id: ReservationId,
        status: RateLimits,
    ) -> None:
        """`status` is how the limits stood when the request was admitted."""
        self.subject: Final = subject
        self.estimate: Final = estimate
        self.reservation_id: Final = reservation_id
        self.limits: Final = status
        self.produced: Final = Produced()
        self.outcome = ""
        self.spent: SpentBudget | None = None
        """The budget that has no room for the rest of the answer."""
        self._end_answer: Callable[[], object] | None = None
        # An answer that is reserved as a whole cannot outgrow its budget.
        is_reserved = estimate.max_output is not None and estimate.max_output <= estimate.output
        limits = (subject.limits, subject.model_limits)
        self._has_budget: Final = not is_reserved and any(each.daily_tokens or each.monthly_tokens for each in limits)
        self._renew_at = max(1, estimate.output // 2) if self._has_budget else None
        self._reservations: Final = reservations
        self._settlement: asyncio.Task[None] | None = None

    def end_generation_with(self, end: Callable[[], object]) -> None:
        """Call `end` when a budget has no room for the rest of the answer, or now if that is so already."""
        self._end_answer = end
        if self.spent is not None:
            end()

    def renewed(self, renewal: Renewal, *, completion: int) -> None:
        """Take note of a renewal, which knew of so many tokens of the answer."""
        if self._has_budget:
            self._renew_at = completion + max(1, renewal.credit // 2)
        if renewal.spent is not None and self.spent is None and self._settlement is None:
            self.spent = renewal.spent
            if self._end_answer is not None:
                self._end_answer()

    def count(self, events: Iterable[pb.Event]) -> None:
        """Take note of what a worker produced."""
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    tokens = event.delta.token_count
                    self.produced.completion += tokens
                    if event.delta.HasField("reasoning_content"):
                        self.produced.reasoning += tokens
                case "started":
                    # It replaces the estimate with the next renewal.
                    self.produced.prompt = event.started.prompt_tokens
                case "usage":
                    usage = event.usage
                    self.produced.prompt = usage.prompt_tokens
                    self.produced.completion = usage.completion_tokens
                    self.produced.cached = usage.cached_tokens
                    self.produced.reasoning = usage.reasoning_tokens
        if self._renew_at is not None and self.produced.completion >= self._renew_at:
            # Renew before the reserved tokens are used up, to reserve more of the budget or end the generation in time.
            self._renew_at = None
            self._reservations.renew_soon(self)

    def settle(self, outcome: str) -> asyncio.Future[None]:
        """Give back what it holds and bill what it produced. Only the first call does; every call can be awaited."""
        if self._settlement is None:
            self.outcome = outcome
            self._end_answer = None
            self._settlement = self._reservations.settle(self)
        # Whoever stops waiting for it does not stop it.
        return asyncio.shield(self._settlement)


class Reservations:
    """The leases of this gateway. `open` and `close` it."""

    def __init__(
        self,
        link: RedisLink,
        local: FallbackLimits,
        *,
        reservation_seconds: float,
        renew_seconds: float,
        reserve_output: int,
    ) -> None:
        """Keep reservations, which expire after `reservation_seconds` unless renewed, every `renew_seconds`."""
        self._link: Final = link
        self._local: Final = local
        self._reservation_seconds: Final = reservation_seconds
        self._renew_seconds: Final = renew_seconds
        self._reserve_output: Final = reserve_output
        self._live: Final[set[Reservation]] = set()
        self._running: Final[Counter[tuple[str, str]]] = Counter()
        self._unsettled: Final[deque[Reservation]] = deque()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._loops: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to renew, and to settle again what could not be settled."""
        self._loops = [asyncio.create_task(self._keep_renewing()), asyncio.create_task(self._keep_settling())]

    async def close(self) -> None:
        """Settle what is left, as far as Redis answers."""
        for loop in self._loops:
            loop.cancel()
        for reservation in list(self._live):
            reservation.settle("stopped")
        await asyncio.gather(*self._loops, *self._tasks, return_exceptions=True)
        await self._settle_again()
        if self._unsettled:
            _log.error("usage was not recorded, because redis is away", extra={"requests": len(self._unsettled)})

    def new_id(self, request_id: str) -> ReservationId:
        """The identity of a lease. It is ours: a request's id is its client's choice, and may come twice."""
        return ReservationId(secrets.token_hex(12), request_id, self._reservation_seconds)

    async def decide(self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Decision:
        """What Redis decides. Raises RedisAwayError."""
        decision = await self._link.run(lambda redis: limit_script.admit(redis, subject, estimate, reservation_id))
        if self._link.rejection is None:
            # What Redis refuses to write is counted here, while it still decides what needs no write.
            self._local.forget()
        return decision

    def admitted(
        self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId, decision: Decision
    ) -> Reservation:
        """The lease that Redis decided on. Raises ApiError (429) when it decided against it."""
        if decision.rejection is not None:
            metrics.LIMITS_REJECTED.labels(decision.rejection.limit).inc()
            raise rate_limit_errors.rejected(decision, subject, estimate)
        return self._reservation(subject, estimate, reservation_id, rate_limit_errors.rate_limits(decision, subject))

    def admit_alone(self, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Reservation:
        """Let a request in without Redis, by the policy for that. Raises ApiError: 429, 503."""
        key_id = subject.key.id
        running = {"key": self._running[key_id, ""], "model": self._running[key_id, subject.model]}
        self._local.admit(subject, estimate, running)
        return self._reservation(subject, estimate, reservation_id, NO_LIMITS)

    def settle(self, reservation: Reservation) -> asyncio.Task[None]:
        """Begin to settle a lease."""
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
            who = (reservation.subject.key.id, scope)
            self._running[who] += change
            if not self._running[who]:
                del self._running[who]

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            live = list(self._live)
            for first in range(0, len(live), AT_ONCE):
                await asyncio.gather(*(self._renew(reservation) for reservation in live[first : first + AT_ONCE]))

    def renew_soon(self, reservation: Reservation) -> None:
        """Renew a lease out of turn."""
        self._begin(self._renew(reservation))

    async def _renew(self, reservation: Reservation) -> None:
        if reservation not in self._live:
            return
        completion = reservation.produced.completion
        renewal = partial(
            limit_script.renew,
            subject=reservation.subject,
            estimate=reservation.estimate,
            reservation_id=reservation.reservation_id,
            produced=reservation.produced,
            reserve_output=self._reserve_output,
        )
        with suppress(RedisAwayError):  # The next renewal, or the settlement, makes up for it.
            reservation.renewed(await self._link.run(renewal), completion=completion)

    async def _settle(self, reservation: Reservation) -> None:
        try:
            await self._link.run(
                lambda redis: limit_script.settle(
                    redis,
                    reservation.subject,
                    reservation.reservation_id,
                    reservation.produced,
                    outcome=reservation.outcome,
                )
            )
        except RedisAwayError:
            if len(self._unsettled) < MAX_UNSETTLED:
                self._unsettled.append(reservation)
            else:
                _log.error(
                    "usage is lost: redis has been away for too long", extra={"key_id": reservation.subject.key.id}
                )

    async def _keep_settling(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self._settle_again()

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
