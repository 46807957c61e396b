"""A reference model of the limits script: it keeps everything and computes each decision from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

MINUTE = 60_000_000
EVERY = "*"
"""Stands for all models."""
ORDER = ("monthly", "daily", "tpm", "rpm")
Limits = dict[str, int]


@dataclass
class Reservation:
    model: str
    ends: int
    estimate: int = 0
    output: int = 0
    prompt: int = 0
    completion: int = 0
    length: int = 0


@dataclass
class ReferenceLimits:
    """The limits of one key. Times are microseconds since 1970."""

    limits: Limits
    model_limits: dict[str, Limits]
    reservations: dict[str, Reservation] = field(default_factory=dict)
    lost: dict[str, Reservation] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    requests: list[tuple[int, str, int]] = field(default_factory=list)
    """The time and the model of every admitted request."""
    tokens: list[tuple[int, str, int]] = field(default_factory=list)
    """The time, the model and the tokens of every charge."""

    def scopes(self, model: str) -> list[tuple[str, Limits, str | None]]:
        return [("key", self.limits, None), ("model", self.model_limits[model], model)]

    def level(self, events: list[tuple[int, str, int]], per_minute: int, model: str | None, now: int) -> Fraction:
        """Return the level of a bucket that leaks `per_minute`, after all these events."""
        filled, at = Fraction(0), 0
        for when, whose, amount in [*events, (now, model or "", 0)]:
            if whose == EVERY:
                # A time in the future counts as now.
                at = min(at, when)
            elif model in (None, whose) or when == now:
                filled = max(Fraction(0), filled - Fraction((when - at) * per_minute, MINUTE))
                if model in (None, whose):
                    filled = max(Fraction(0), filled + amount)
                at = when
        return filled

    def clock_goes_back(self, now: int) -> None:
        """Correct times in the future in all buckets and reservations."""
        self.requests.append((now, EVERY, 0))
        self.tokens.append((now, EVERY, 0))
        for reservation in self.reservations.values():
            reservation.ends = min(reservation.ends, now + reservation.length)

    def reserved(self, model: str | None) -> int:
        return sum(
            reservation.estimate + reservation.output
            for reservation in self.reservations.values()
            if model in (None, reservation.model)
        )

    def slots(self, model: str | None) -> int:
        return sum(model in (None, reservation.model) for reservation in self.reservations.values())

    def used(self, period: str, model: str | None, now: int) -> int:
        form = "%Y-%m-%d" if period == "daily" else "%Y-%m"
        today = _date(now, form)
        return sum(n for when, whose, n in self.tokens if model in (None, whose) and _date(when, form) == today)

    def tokens_rejections(self, model: str, amount: int, now: int) -> dict[str, set[tuple[str, int]]]:
        """Return the limits that do not allow `amount` tokens, with their scopes and waits."""
        found: dict[str, set[tuple[str, int]]] = {}
        for scope, limits, only in self.scopes(model):
            reserved = self.reserved(only)
            for period in ("monthly", "daily"):
                if period in limits and self.used(period, only, now) + reserved + amount > limits[period]:
                    found.setdefault(period, set()).add((scope, -1))
            if "tpm" in limits:
                missing = self.level(self.tokens, limits["tpm"], only, now) + reserved + amount - limits["tpm"]
                if missing > 0:
                    wait = -1 if amount > limits["tpm"] else -(-missing * MINUTE // limits["tpm"])
                    found.setdefault("tpm", set()).add((scope, int(wait)))
        return found

    def rejections(self, model: str, amount: int, now: int) -> dict[str, set[tuple[str, int]]]:
        found = self.tokens_rejections(model, amount, now)
        for scope, limits, only in self.scopes(model):
            if "rpm" in limits:
                missing = self.level(self.requests, limits["rpm"], only, now) + 1 - limits["rpm"]
                if missing > 0:
                    found.setdefault("rpm", set()).add((scope, int(-(-missing * MINUTE // limits["rpm"]))))
            if "concurrency" in limits and self.slots(only) >= limits["concurrency"]:
                found.setdefault("concurrency", set()).add((scope, 0))
        return found

    def admit(self, reservation_id: str, model: str, estimate: int, output: int, *, now: int, duration: int) -> bool:
        self.reap(now)
        if self.rejections(model, estimate + output, now):
            return False
        self.requests.append((now, model, 1))
        self.reservations[reservation_id] = Reservation(model, now + duration, estimate, output, length=duration)
        return True

    def renew(
        self,
        reservation_id: str,
        model: str,
        *,
        prompt: int | None,
        completion: int,
        maximum: int | None,
        reserve: int,
        now: int,
        duration: int,
    ) -> bool:
        """Renew a reservation. Return whether a budget is used up before the generation is complete."""
        self.reap(now, spare=reservation_id)
        if reservation_id in self.settled:
            return False
        mine = self._reservation(reservation_id, model)
        if prompt is not None:
            self._charge(model, max(0, prompt - mine.prompt), now)
            mine.prompt, mine.estimate = max(mine.prompt, prompt), 0
        new = max(0, completion - mine.completion)
        self._charge(model, new, now)
        mine.completion += new
        mine.output = max(0, mine.output - new)
        wanted = reserve - mine.output
        if maximum is not None:
            wanted = min(wanted, maximum - mine.completion - mine.output)
        capacity = self.capacity(model, now)
        wanted = wanted if capacity is None else min(wanted, capacity)
        if mine.output * 2 <= reserve and wanted > 0 and not self.tokens_rejections(model, wanted, now):
            mine.output += wanted
        mine.ends, mine.length = now + duration, duration
        capacity = self.capacity(model, now)
        is_whole = maximum is not None and mine.completion >= maximum
        return mine.output == 0 and capacity is not None and capacity <= 0 and not is_whole

    def capacity(self, model: str, now: int) -> int | None:
        """Return the remaining tokens of the tightest budget; None without a budget."""
        left = [
            limits[period] - self.used(period, only, now) - self.reserved(only)
            for _, limits, only in self.scopes(model)
            for period in ("daily", "monthly")
            if period in limits
        ]
        return min(left, default=None)

    def settle(self, reservation_id: str, model: str, prompt: int, completion: int, now: int) -> None:
        self.reap(now, spare=reservation_id)
        if reservation_id in self.settled:
            return
        mine = self._reservation(reservation_id, model)
        self._charge(model, prompt + completion - mine.prompt - mine.completion, now)
        del self.reservations[reservation_id]
        self.settled.add(reservation_id)

    def reap(self, now: int, spare: str = "") -> None:
        for reservation_id in [
            each for each, reservation in self.reservations.items() if reservation.ends <= now and each != spare
        ]:
            self.lost[reservation_id] = self.reservations.pop(reservation_id)

    def _reservation(self, reservation_id: str, model: str) -> Reservation:
        if reservation_id not in self.reservations:
            lost = self.lost.get(reservation_id, Reservation(model, 0))
            self.reservations[reservation_id] = Reservation(model, 0, prompt=lost.prompt, completion=lost.completion)
        return self.reservations[reservation_id]

    def _charge(self, model: str, amount: int, now: int) -> None:
        if amount:
            self.tokens.append((now, model, amount))


def _date(now: int, form: str) -> str:
    return datetime.fromtimestamp(now // 1_000_000, UTC).strftime(form)
