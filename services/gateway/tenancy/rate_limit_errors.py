"""Reports a key's limits to its client: their state, and the error of the limit that rejected a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import RateLimits, Window, duration
from services.gateway.tenancy.limit_script import Decision, Scope, Subject
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.token_estimate import TokenEstimate

SLOT_SECONDS: Final = 1.0
"""`Retry-After` for a missing slot, because it is unknown when one will be free."""
_TOO_LARGE_SECONDS: Final = 60.0
"""`Retry-After` for a request that never fits; a smaller one may."""


def rate_limits(decision: Decision, subject: Subject) -> RateLimits:
    """Return the state of the limits of the key or of the model: of the one that rejected, or that has less left."""
    rejecting = decision.rejection.scope if decision.rejection is not None else ""

    def order(name: str, remaining: int) -> tuple[bool, int]:
        return name != rejecting, remaining

    scopes = decision.scopes.items()
    requests = [(order(name, scope.requests), name) for name, scope in scopes if scope.requests is not None]
    tokens = [(order(name, scope.tokens), name) for name, scope in scopes if scope.tokens is not None]
    return RateLimits(
        _requests_window(min(requests)[1], decision, subject) if requests else None,
        _tokens_window(min(tokens)[1], decision, subject) if tokens else None,
    )


def _requests_window(name: str, decision: Decision, subject: Subject) -> Window:
    scope = decision.scopes[name]
    return Window(_limits(name, subject).rpm or 0, scope.requests or 0, scope.requests_reset / 1e6)


def _tokens_window(name: str, decision: Decision, subject: Subject) -> Window:
    scope = decision.scopes[name]
    return Window(_limits(name, subject).tpm or 0, scope.tokens or 0, scope.tokens_reset / 1e6)


def _limits(scope: str, subject: Subject) -> Limits:
    return subject.model_limits if scope == "model" else subject.limits


def rejected(decision: Decision, subject: Subject, estimate: TokenEstimate) -> ApiError:
    """Return the 429 for a decision that rejects a request."""
    rejection = decision.rejection
    assert rejection is not None  # noqa: S101  # it is called for rejections only
    limits, scope = _limits(rejection.scope, subject), decision.scopes[rejection.scope]
    whom = "this key" if rejection.scope == "key" else f"this key and the model {subject.model}"
    wait = rejection.wait / 1e6
    match rejection.limit:
        case "daily" | "monthly":
            error = _over_budget(decision, estimate, limits, whom)
        case "rpm":
            error = _over_rpm(limits.rpm, whom, wait)
        case "tpm" if rejection.wait < 0:
            error = _never_fits(limits.tpm, whom, estimate)
        case "tpm":
            error = _over_tpm(limits.tpm, whom, estimate, left=scope.tokens, wait=wait)
        case _:
            error = _no_slot(limits.concurrency, whom)
    error.limits = rate_limits(decision, subject)
    return error


def _over_rpm(rpm: int | None, whom: str, wait: float) -> ApiError:
    text = f"Rate limit reached: {rpm} requests per minute for {whom}."
    return _rate_limit(f"{text} Try again in {duration(wait)}.", wait)


def _over_tpm(tpm: int | None, whom: str, estimate: TokenEstimate, *, left: int | None, wait: float) -> ApiError:
    text = f"Rate limit reached: {tpm} tokens per minute for {whom}. {left} are left, and {_need(estimate)}."
    return _rate_limit(f"{text} Try again in {duration(wait)}.", wait)


def _never_fits(tpm: int | None, whom: str, estimate: TokenEstimate) -> ApiError:
    message = (
        f"The request is too large: {tpm} tokens per minute is the limit for {whom}, and {_need(estimate)}. "
        "Send a shorter prompt or a smaller max_tokens."
    )
    return _rate_limit(message, _TOO_LARGE_SECONDS, should_retry=False)


def _no_slot(concurrency: int | None, whom: str) -> ApiError:
    text = f"Concurrency limit reached: {concurrency} requests at the same time for {whom}."
    return _rate_limit(f"{text} Try again when one has ended.", SLOT_SECONDS)


def _need(estimate: TokenEstimate) -> str:
    total = estimate.prompt + estimate.output
    return f"this request needs about {total}: {estimate.prompt} for its prompt and {estimate.output} for its answer"


def _rate_limit(message: str, retry_after: float, *, should_retry: bool | None = None) -> ApiError:
    return ApiError(
        429,
        ErrorKind.RATE_LIMIT,
        message,
        code="rate_limit_exceeded",
        retry_after=retry_after,
        should_retry=should_retry,
    )


def _over_budget(decision: Decision, estimate: TokenEstimate, limits: Limits, whom: str) -> ApiError:
    rejection = decision.rejection
    assert rejection is not None  # noqa: S101  # as above
    scope: Scope = decision.scopes[rejection.scope]
    daily, monthly = (limits.daily_tokens, scope.daily), (limits.monthly_tokens, scope.monthly)
    budget, used = daily if rejection.limit == "daily" else monthly
    left = max(0, (budget or 0) - used - scope.reserved)
    now = datetime.fromtimestamp(decision.seconds, UTC)
    renewed = next_day(now) if rejection.limit == "daily" else next_month(now)
    message = (
        f"The {rejection.limit} budget of {budget} tokens for {whom} is used up: {used} were used, {scope.reserved} "
        f"are reserved by running requests, {left} are left, and this request needs about "
        f"{estimate.prompt + estimate.output} ({estimate.prompt} for its prompt and {estimate.output} for its answer). "
        f"It begins anew at {renewed:%Y-%m-%dT%H:%M:%SZ}."
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
    """Return when the next daily budget begins."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_month(now: datetime) -> datetime:
    """Return when the next monthly budget begins."""
    return next_day((now.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))
