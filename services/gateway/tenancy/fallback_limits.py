"""Limits while Redis is away: each gateway counts its own requests and enforces its share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from services.gateway import metrics
from services.gateway.errors import unavailable
from services.gateway.settings import RedisAwayPolicy
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.limits_script import Decision, Rejection, Scope, Subject
from services.gateway.tenancy.rate_limit_errors import rejected
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.messages.message import Message


class _Bucket:
    def __init__(self, now: float) -> None:
        self._filled = 0.0
        self._at = now

    def wait(self, amount: float, per_minute: float, now: float) -> float:
        """Return the seconds until the bucket has capacity for `amount`."""
        self._filled = max(0.0, self._filled - (now - self._at) * per_minute / 60)
        self._at = now
        return max(0.0, (self._filled + amount - per_minute) * 60 / per_minute)

    def fill(self, amount: float) -> None:
        self._filled += amount


class FallbackLimits:
    """Decides about requests without Redis."""

    def __init__(self, policy: RedisAwayPolicy, gateways: Callable[[], int]) -> None:
        """Decide by `policy`. `gateways` returns the last known number of gateways, which share each limit."""
        self._policy: Final = policy
        self._gateways: Final = gateways
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}

    def forget(self) -> None:
        """Reset all counts, because Redis is back and decides again."""
        self._buckets.clear()

    def admit(self, subject: Subject, estimate: TokenEstimate, running: dict[str, int]) -> None:
        """Admit a request. `running` counts this gateway's running requests of the key, by scope.

        Raises ApiError (429, 503).
        """
        metrics.REDIS_AWAY.labels(f"limits_{self._policy}").inc()
        if self._policy is RedisAwayPolicy.CLOSED:
            raise unavailable(Message("limits_not_checked"))
        if self._policy is RedisAwayPolicy.OPEN:
            return
        now = time.monotonic()
        scopes = {"key": (subject.limits, ""), "model": (subject.model_limits, subject.model)}
        for name, (limits, model) in scopes.items():
            for limit, wait in self._waits(subject.key.id, model, limits, estimate, running=running[name], now=now):
                if wait > 0:
                    metrics.LIMITS_REJECTED.labels(limit).inc()
                    raise rejected(_decision(name, limit, wait), subject, estimate)
        for limits, model in scopes.values():
            self._bucket(subject.key.id, model, "rpm", now).fill(1 if limits.rpm else 0)
            self._bucket(subject.key.id, model, "tpm", now).fill(_amount(estimate) if limits.tpm else 0)

    def _waits(
        self, key_id: str, model: str, limits: Limits, estimate: TokenEstimate, *, running: int, now: float
    ) -> list[tuple[str, float]]:
        waits: list[tuple[str, float]] = []
        if limits.rpm:
            waits.append(("rpm", self._bucket(key_id, model, "rpm", now).wait(1, self._share(limits.rpm), now)))
        if limits.tpm:
            bucket = self._bucket(key_id, model, "tpm", now)
            waits.append(("tpm", bucket.wait(_amount(estimate), self._share(limits.tpm), now)))
        if limits.concurrency:
            waits.append(("concurrency", 1.0 if running >= self._share(limits.concurrency) else 0.0))
        return waits

    def _share(self, limit: int) -> int:
        return max(1, limit // max(1, self._gateways()))

    def _bucket(self, key_id: str, model: str, what: str, now: float) -> _Bucket:
        return self._buckets.setdefault((key_id, model, what), _Bucket(now))


def _amount(estimate: TokenEstimate) -> int:
    return estimate.prompt + estimate.output


def _decision(scope: str, limit: str, wait: float) -> Decision:
    state = Scope(reserved=0, slots=0, daily=0, monthly=0)
    return Decision(int(time.time()), {"key": state, "model": state}, Rejection(limit, scope, math.ceil(wait * 1e6)))
