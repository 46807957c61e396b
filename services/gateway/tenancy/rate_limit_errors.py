"""Reports a key's limits to its client: their state, and the error of the limit that rejected a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import RateLimits, Window, duration
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.limits_script import Decision, Produced, Scope, Subject
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.messages.message import Message

SLOT_SECONDS: Final = 1.0
"""`Retry-After` for a missing slot, because it is unknown when one will be free."""
_TOO_LARGE_SECONDS: Final = 60.0
"""`Retry-After` for a request that never fits; a smaller one may."""


def rate_limits(decision: Decision, subject: Subject) -> RateLimits:
    """Return the state of the limits of the key or of the model: of the one that rejected, or that has less left."""
    rejecting = decision.rejection.scope if decision.rejection is not None else ""
    scopes = decision.scopes.items()
    requests = [(name != rejecting, scope.requests, name) for name, scope in scopes if scope.requests is not None]
    tokens = [(name != rejecting, scope.tokens, name) for name, scope in scopes if scope.tokens is not None]
    return RateLimits(
        _requests_window(min(requests)[2], decision, subject) if requests else None,
        _tokens_window(min(tokens)[2], decision, subject) if tokens else None,
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
    model = "" if rejection.scope == "key" else subject.model
    wait = rejection.wait / 1e6
    match rejection.limit:
        case "daily" | "monthly":
            error = _over_budget(decision, estimate, limits, model)
        case "daily_cost" | "weekly_cost" | "monthly_cost":
            error = _over_money(decision, subject, estimate, limits, model)
        case "rpm":
            error = _over_rpm(limits.rpm, model, wait)
        case "tpm" if rejection.wait < 0:
            error = _never_fits(limits.tpm, model, estimate)
        case "tpm":
            error = _over_tpm(limits.tpm, model, estimate, left=scope.tokens, wait=wait)
        case _:
            error = _no_slot(limits.concurrency, model)
    error.limits = rate_limits(decision, subject)
    return error


def _over_rpm(rpm: int | None, model: str, wait: float) -> ApiError:
    message = Message(
        "request_rate_of_model_exceeded" if model else "request_rate_exceeded",
        count=rpm or 0,
        model=model,
        wait=duration(wait),
    )
    return _rate_limit(message, wait)


def _over_tpm(tpm: int | None, model: str, estimate: TokenEstimate, *, left: int | None, wait: float) -> ApiError:
    message = Message(
        "token_rate_of_model_exceeded" if model else "token_rate_exceeded",
        limit=tpm or 0,
        model=model,
        left=left or 0,
        need=estimate.prompt + estimate.output,
        prompt=estimate.prompt,
        output=estimate.output,
        wait=duration(wait),
    )
    return _rate_limit(message, wait)


def _never_fits(tpm: int | None, model: str, estimate: TokenEstimate) -> ApiError:
    message = Message(
        "request_over_token_rate_of_model" if model else "request_over_token_rate",
        limit=tpm or 0,
        model=model,
        need=estimate.prompt + estimate.output,
        prompt=estimate.prompt,
        output=estimate.output,
    )
    return _rate_limit(message, _TOO_LARGE_SECONDS, should_retry=False)


def _no_slot(concurrency: int | None, model: str) -> ApiError:
    message = Message(
        "concurrency_of_model_exceeded" if model else "concurrency_exceeded", count=concurrency or 0, model=model
    )
    return _rate_limit(message, SLOT_SECONDS)


def _rate_limit(message: Message, retry_after: float, *, should_retry: bool | None = None) -> ApiError:
    return ApiError(
        429,
        ErrorKind.RATE_LIMIT,
        message,
        code="rate_limit_exceeded",
        retry_after=retry_after,
        should_retry=should_retry,
    )


def _over_budget(decision: Decision, estimate: TokenEstimate, limits: Limits, model: str) -> ApiError:
    rejection = decision.rejection
    assert rejection is not None  # noqa: S101  # as above
    scope: Scope = decision.scopes[rejection.scope]
    is_daily = rejection.limit == "daily"
    budget, used = (limits.daily_tokens, scope.daily) if is_daily else (limits.monthly_tokens, scope.monthly)
    now = datetime.fromtimestamp(decision.seconds, UTC)
    renewed = next_day(now) if is_daily else next_month(now)
    message = Message(
        ("daily_budget_of_model_exceeded" if is_daily else "monthly_budget_of_model_exceeded")
        if model
        else ("daily_budget_exceeded" if is_daily else "monthly_budget_exceeded"),
        limit=budget or 0,
        model=model,
        used=used,
        reserved=scope.reserved,
        left=max(0, (budget or 0) - used - scope.reserved),
        need=estimate.prompt + estimate.output,
        prompt=estimate.prompt,
        output=estimate.output,
        renewed=f"{renewed:%Y-%m-%dT%H:%M:%SZ}",
    )
    return _quota(message, (renewed - now).total_seconds())


def _over_money(decision: Decision, subject: Subject, estimate: TokenEstimate, limits: Limits, model: str) -> ApiError:
    rejection, price = decision.rejection, subject.price
    assert rejection is not None  # noqa: S101  # as above
    assert price is not None  # noqa: S101  # without a price, no budget in money is asked
    scope, period = decision.scopes[rejection.scope], rejection.limit.removesuffix("_cost")
    budget, used = getattr(limits, rejection.limit) or 0, getattr(scope, rejection.limit)
    now = datetime.fromtimestamp(decision.seconds, UTC)
    renewed = {"daily": next_day, "weekly": next_week, "monthly": next_month}[period](now)
    is_daily, is_weekly = period == "daily", period == "weekly"
    message = Message(
        (
            "daily_money_of_model_exceeded"
            if is_daily
            else ("weekly_money_of_model_exceeded" if is_weekly else "monthly_money_of_model_exceeded")
        )
        if model
        else (
            "daily_money_exceeded" if is_daily else ("weekly_money_exceeded" if is_weekly else "monthly_money_exceeded")
        ),
        limit=price.text(budget),
        model=model,
        used=price.text(used),
        reserved=price.text(scope.reserved_cost),
        left=price.text(max(0, budget - used - scope.reserved_cost)),
        need=price.text(price.cost(Produced(prompt=estimate.prompt, completion=estimate.output))),
        renewed=f"{renewed:%Y-%m-%dT%H:%M:%SZ}",
    )
    return _quota(message, (renewed - now).total_seconds())


def _quota(message: Message, retry_after: float) -> ApiError:
    return ApiError(
        429, ErrorKind.QUOTA, message, code="insufficient_quota", retry_after=retry_after, should_retry=False
    )


def next_day(now: datetime) -> datetime:
    """Return when the next daily budget begins."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_week(now: datetime) -> datetime:
    """Return when the next weekly budget begins, on Monday."""
    return next_day(now) + timedelta(days=6 - now.weekday())


def next_month(now: datetime) -> datetime:
    """Return when the next monthly budget begins."""
    return next_day((now.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))
