"""A reference model of the limits script: it keeps everything and computes each decision from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

MINUTE = 60_000_000
EVERY = "*"
"""Stands for all models."""
Limits = dict[str, int]
Prices = dict[str, int]
COSTS = ("monthly_cost", "weekly_cost", "daily_cost")


@dataclass
class Reservation:
    model: str
    ends: int
    estimate: int = 0
    output: int = 0
    prompt: int = 0
    completion: int = 0
    length: int = 0
    cached: int = 0
    prices: Prices | None = None
    cost: int = 0

    def cost_with(self, prompt: int, completion: int) -> int:
        """Return the cost of so many further tokens and of those that were charged, rounded once."""
        if self.prices is None:
            return 0
        cached = min(self.cached, self.prompt + prompt)
        exact = (self.prompt + prompt - cached) * self.prices["prompt"] + cached * self.prices["cached"]
        exact += (self.completion + completion) * self.prices["completion"]
        return math.ceil(Fraction(exact, 1_000_000))

    @property
    def held(self) -> int:
        """The cost of the tokens that are reserved."""
        return max(0, self.cost_with(self.estimate, self.output) - self.cost_with(0, 0))


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
    prices: dict[str, Prices] = field(default_factory=dict)
    bills: dict[str, int] = field(default_factory=dict)
    """The cost of each request that has ended."""
    costs: list[tuple[int, str, int]] = field(default_factory=list)
    """The time, the model and the money of every charge."""

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

    def spent(self, period: str, model: str | None, now: int) -> int:
        same = _PERIODS[period]
        return max(0, sum(n for when, whose, n in self.costs if model in (None, whose) and same(when) == same(now)))

    def reserved_cost(self, model: str | None) -> int:
        return sum(each.held for each in self.reservations.values() if model in (None, each.model))

    def money_left(self, model: str, now: int) -> dict[tuple[str, str], int]:
        """Return what is left of each budget in money, by its name and scope."""
        return {
            (period, scope): limits[period] - self.spent(period, only, now) - self.reserved_cost(only)
            for scope, limits, only in self.scopes(model)
            for period in COSTS
            if period in limits
        }

    def money_rejections(self, model: str, cost: int, now: int) -> dict[str, set[tuple[str, int]]]:
        found: dict[str, set[tuple[str, int]]] = {}
        for (period, scope), left in self.money_left(model, now).items():
            if cost > left or (left <= 0 and any(self.prices[model].values())):
                found.setdefault(period, set()).add((scope, -1))
        return found

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

    def rejections(self, model: str, estimate: int, output: int, now: int) -> dict[str, set[tuple[str, int]]]:
        found = self.tokens_rejections(model, estimate + output, now)
        if model in self.prices:
            wanted = Reservation(model, now, estimate, output, prices=self.prices[model])
            found |= self.money_rejections(model, wanted.held, now)
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
        if self.rejections(model, estimate, output, now):
            return False
        self.requests.append((now, model, 1))
        self.reservations[reservation_id] = Reservation(
            model, now + duration, estimate, output, length=duration, prices=self.prices.get(model)
        )
        return True

    def renew(
        self,
        reservation_id: str,
        model: str,
        *,
        prompt: int | None,
        cached: int,
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
            mine.prompt, mine.estimate, mine.cached = max(mine.prompt, prompt), 0, cached
        new = max(0, completion - mine.completion)
        self._charge(model, new, now)
        mine.completion += new
        mine.output = max(0, mine.output - new)
        self._account(mine, now)
        wanted = reserve - mine.output
        if maximum is not None:
            wanted = min(wanted, maximum - mine.completion - mine.output)
        capacity = self.capacity(mine, reserve, now)
        wanted = wanted if capacity is None else min(wanted, capacity)
        if mine.output * 2 <= reserve and wanted > 0 and not self.tokens_rejections(model, wanted, now):
            mine.output += wanted
        mine.ends, mine.length = now + duration, duration
        capacity = self.capacity(mine, reserve, now)
        is_whole = maximum is not None and mine.completion >= maximum
        return mine.output == 0 and capacity is not None and capacity <= 0 and not is_whole

    def capacity(self, mine: Reservation, reserve: int, now: int) -> int | None:
        """Return the remaining tokens of the tightest budget, at most `reserve` of money; None without a budget."""
        left = [
            limits[period] - self.used(period, only, now) - self.reserved(only)
            for _, limits, only in self.scopes(mine.model)
            for period in ("daily", "monthly")
            if period in limits
        ]
        if mine.prices is not None:
            left += [_affordable(mine, money, reserve) for money in self.money_left(mine.model, now).values()]
        return min(left, default=None)

    def settle(
        self, reservation_id: str, model: str, prompt: int, completion: int, now: int, *, cached: int = 0
    ) -> None:
        self.reap(now, spare=reservation_id)
        if reservation_id in self.settled:
            return
        mine = self._reservation(reservation_id, model)
        self._charge(model, prompt + completion - mine.prompt - mine.completion, now)
        mine.prompt, mine.completion, mine.cached = prompt, completion, cached
        self._account(mine, now)
        self.bills[reservation_id] = mine.cost
        del self.reservations[reservation_id]
        self.settled.add(reservation_id)

    def reap(self, now: int, spare: str = "") -> None:
        for reservation_id in [
            each for each, reservation in self.reservations.items() if reservation.ends <= now and each != spare
        ]:
            lost = self.lost[reservation_id] = self.reservations.pop(reservation_id)
            self.bills[reservation_id] = lost.cost

    def _reservation(self, reservation_id: str, model: str) -> Reservation:
        if reservation_id not in self.reservations:
            lost = self.lost.get(reservation_id, Reservation(model, 0))
            self.reservations[reservation_id] = Reservation(
                model,
                0,
                prompt=lost.prompt,
                completion=lost.completion,
                cached=lost.cached,
                cost=lost.cost,
                prices=self.prices.get(model),
            )
        return self.reservations[reservation_id]

    def _account(self, mine: Reservation, now: int) -> None:
        cost = mine.cost_with(0, 0)
        if cost != mine.cost:
            self.costs.append((now, mine.model, cost - mine.cost))
            mine.cost = cost

    def _charge(self, model: str, amount: int, now: int) -> None:
        if amount:
            self.tokens.append((now, model, amount))


def _affordable(mine: Reservation, left: int, most: int) -> int:
    """Return how many further output tokens the money that is left allows."""
    assert mine.prices is not None
    if mine.prices["completion"] == 0:
        return most
    if left <= 0:
        return 0
    reserved = mine.cost_with(mine.estimate, mine.output)
    return max(
        count for count in range(most + 1) if mine.cost_with(mine.estimate, mine.output + count) - reserved <= left
    )


def _week(now: int) -> tuple[int, int]:
    return datetime.fromtimestamp(now // 1_000_000, UTC).isocalendar()[:2]


_PERIODS: dict[str, Callable[[int], Any]] = {
    "daily_cost": lambda now: _date(now, "%Y-%m-%d"),
    "weekly_cost": _week,
    "monthly_cost": lambda now: _date(now, "%Y-%m"),
}


def _date(now: int, form: str) -> str:
    return datetime.fromtimestamp(now // 1_000_000, UTC).strftime(form)
