"""What a client is told about its key's limits: how they stand, and the error of the very limit that refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import RateLimits, Window, duration
from services.gateway.tenancy.allowance import Allowance
from services.gateway.tenancy.demand import Demand
from services.gateway.tenancy.limits import Decision, Scope, Subject

SLOT_SECONDS: Final = 1.0
"""When to come back for a slot; nobody knows when one will be free."""
_TOO_LARGE_SECONDS: Final = 60.0
"""When to come back with a request that never fits: a smaller one may."""


def rate_limits(decision: Decision, subject: Subject) -> RateLimits:
    """Return the limits of the key or of its use of the model, whichever has less left, or the one that refused."""
    refusing = decision.refusal.scope if decision.refusal is not None else ""

    def order(name: str, remaining: int) -> tuple[bool, int]:
        return name != refusing, remaining

    scopes = decision.scopes.items()
    requests = [(order(name, scope.requests), name) for name, scope in scopes if scope.requests is not None]
    tokens = [(order(name, scope.tokens), name) for name, scope in scopes if scope.tokens is not None]
    return RateLimits(
        _requests_window(min(requests)[1], decision, subject) if requests else None,
        _tokens_window(min(tokens)[1], decision, subject) if tokens else None,
    )


def _requests_window(name: str, decision: Decision, subject: Subject) -> Window:
    scope = decision.scopes[name]
    return Window(_allowance(name, subject).rpm or 0, scope.requests or 0, scope.requests_reset / 1e6)


def _tokens_window(name: str, decision: Decision, subject: Subject) -> Window:
    scope = decision.scopes[name]
    return Window(_allowance(name, subject).tpm or 0, scope.tokens or 0, scope.tokens_reset / 1e6)


def _allowance(scope: str, subject: Subject) -> Allowance:
    return subject.model_limits if scope == "model" else subject.limits


def refused(decision: Decision, subject: Subject, demand: Demand) -> ApiError:
    """Return the 429 for a decision that refuses."""
    refusal = decision.refusal
    assert refusal is not None  # noqa: S101  # what it is called for
    limits, scope = _allowance(refusal.scope, subject), decision.scopes[refusal.scope]
    whom = "this key" if refusal.scope == "key" else f"this key and the model {subject.model}"
    wait = refusal.wait / 1e6
    match refusal.limit:
        case "daily" | "monthly":
            error = _over_budget(decision, demand, limits, whom)
        case "rpm":
            error = _over_rpm(limits.rpm, whom, wait)
        case "tpm" if refusal.wait < 0:
            error = _never_fits(limits.tpm, whom, demand)
        case "tpm":
            error = _over_tpm(limits.tpm, whom, demand, left=scope.tokens, wait=wait)
        case _:
            error = _no_slot(limits.concurrency, whom)
    error.limits = rate_limits(decision, subject)
    return error


def _over_rpm(rpm: int | None, whom: str, wait: float) -> ApiError:
    text = f"Rate limit reached: {rpm} requests per minute for {whom}."
    return _rate_limit(f"{text} Try again in {duration(wait)}.", wait)


def _over_tpm(tpm: int | None, whom: str, demand: Demand, *, left: int | None, wait: float) -> ApiError:
    text = f"Rate limit reached: {tpm} tokens per minute for {whom}. {left} are left, and {_need(demand)}."
    return _rate_limit(f"{text} Try again in {duration(wait)}.", wait)


def _never_fits(tpm: int | None, whom: str, demand: Demand) -> ApiError:
    message = (
        f"The request is too large: {tpm} tokens per minute is the limit for {whom}, and {_need(demand)}. "
        "Send a shorter prompt or a smaller max_tokens."
    )
    return _rate_limit(message, _TOO_LARGE_SECONDS, should_retry=False)


def _no_slot(concurrency: int | None, whom: str) -> ApiError:
    text = f"Concurrency limit reached: {concurrency} requests at the same time for {whom}."
    return _rate_limit(f"{text} Try again when one has ended.", SLOT_SECONDS)


def _need(demand: Demand) -> str:
    total = demand.prompt + demand.output
    return f"this request needs about {total}: {demand.prompt} for its prompt and {demand.output} for its answer"


def _rate_limit(message: str, retry_after: float, *, should_retry: bool | None = None) -> ApiError:
    return ApiError(
        429,
        ErrorKind.RATE_LIMIT,
        message,
        code="rate_limit_exceeded",
        retry_after=retry_after,
        should_retry=should_retry,
    )


def _over_budget(decision: Decision, demand: Demand, limits: Allowance, whom: str) -> ApiError:
    refusal = decision.refusal
    assert refusal is not None  # noqa: S101  # as above
    scope: Scope = decision.scopes[refusal.scope]
    daily, monthly = (limits.daily_tokens, scope.daily), (limits.monthly_tokens, scope.monthly)
    budget, used = daily if refusal.limit == "daily" else monthly
    left = max(0, (budget or 0) - used - scope.reserved)
    now = datetime.fromtimestamp(decision.seconds, UTC)
    renewed = next_day(now) if refusal.limit == "daily" else next_month(now)
    message = (
        f"The {refusal.limit} budget of {budget} tokens for {whom} is used up: {used} were used, {scope.reserved} are reserved "
        f"by running requests, {left} are left, and this request needs about {demand.prompt + demand.output} "
        f"({demand.prompt} for its prompt and {demand.output} for its answer). It begins anew at {renewed:%Y-%m-%dT%H:%M:%SZ}."
    )
    return ApiError(
        429,
        ErrorKind.QUOTA,
        message,
        code="insufficient_quota",
        retry_after=(renewed - now).total_seconds(),
        should_retry=False,
    )


def next_day(now: datetime) -> datetime:
    """Return when the daily budget begins anew."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_month(now: datetime) -> datetime:
    """Return when the monthly budget begins anew."""
    return next_day((now.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))
