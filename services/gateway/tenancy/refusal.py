"""What a client is told about its key's limits: the headers of every answer, and the 429 of the very limit that refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from services.gateway.errors import ApiError, retry_headers
from services.gateway.tenancy.allowance import Allowance
from services.gateway.tenancy.demand import Demand
from services.gateway.tenancy.limits import Decision, Subject

NO_RETRY: Final = {"x-should-retry": "false"}
SLOT_SECONDS: Final = 1.0
"""When to come back for a slot; nobody knows when one will be free."""


def headers(decision: Decision, subject: Subject) -> dict[str, str]:
    """`x-ratelimit-*`: of the key or of its use of the model, whichever has less left, or the one that refused."""
    refusing = decision.refusal.scope if decision.refusal is not None else ""
    scopes = decision.scopes.items()
    limits = {"key": subject.limits, "model": subject.model_limits}
    found: dict[str, str] = {}
    of_requests = [(scope.requests, name, scope) for name, scope in scopes if scope.requests is not None]
    if of_requests:
        remaining, name, scope = min(of_requests, key=lambda each: (each[1] != refusing, each[0]))
        found |= _headers("requests", limits[name].rpm, remaining, scope.requests_reset)
    of_tokens = [(scope.tokens, name, scope) for name, scope in scopes if scope.tokens is not None]
    if of_tokens:
        remaining, name, scope = min(of_tokens, key=lambda each: (each[1] != refusing, each[0]))
        found |= _headers("tokens", limits[name].tpm, remaining, scope.tokens_reset)
    return found


def _headers(what: str, limit: int | None, remaining: int, reset: int) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": duration(reset / 1e6),
    }


def refused(decision: Decision, subject: Subject, demand: Demand) -> ApiError:
    """The 429 for a decision that refuses."""
    refusal = decision.refusal
    assert refusal is not None  # noqa: S101  # what it is called for
    limits = subject.model_limits if refusal.scope == "model" else subject.limits
    whom = "this key" if refusal.scope == "key" else f"this key and the model {subject.model}"
    shown = headers(decision, subject)
    if refusal.limit in ("daily", "monthly"):
        return _over_budget(decision, demand, limits, whom, shown)
    need = (
        f"this request needs about {demand.prompt + demand.output}: {demand.prompt} for its prompt and {demand.output} "
    )
    need += "for its answer"
    match refusal.limit:
        case "rpm":
            text = f"Rate limit reached: {limits.rpm} requests per minute for {whom}."
        case "tpm" if refusal.wait < 0:
            message = (
                f"The request is too large: {limits.tpm} tokens per minute is the limit for {whom}, and {need}. "
                "Send a shorter prompt or a smaller max_tokens."
            )
            return _rate_limit(message, {**shown, **retry_headers(60), **NO_RETRY})
        case "tpm":
            left = decision.scopes[refusal.scope].tokens
            text = f"Rate limit reached: {limits.tpm} tokens per minute for {whom}. {left} are left, and {need}."
        case _:
            text = f"Concurrency limit reached: {limits.concurrency} requests at the same time for {whom}."
            message = f"{text} Try again when one has ended."
            return _rate_limit(message, {**shown, **retry_headers(SLOT_SECONDS)})
    wait = refusal.wait / 1e6
    return _rate_limit(f"{text} Try again in {duration(wait)}.", {**shown, **retry_headers(wait)})


def _rate_limit(message: str, more: dict[str, str]) -> ApiError:
    return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=more)


def _over_budget(decision: Decision, demand: Demand, limits: Allowance, whom: str, shown: dict[str, str]) -> ApiError:
    refusal = decision.refusal
    assert refusal is not None  # noqa: S101  # as above
    scope = decision.scopes[refusal.scope]
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
    wait = (renewed - now).total_seconds()
    return ApiError(
        429,
        message,
        type="insufficient_quota",
        code="insufficient_quota",
        headers={**shown, **retry_headers(wait), **NO_RETRY},
    )


def next_day(now: datetime) -> datetime:
    """When the daily budget begins anew."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_month(now: datetime) -> datetime:
    """When the monthly budget begins anew."""
    return next_day((now.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))


def duration(seconds: float) -> str:
    """A duration as OpenAI's headers write it: 12ms, 5s, 1m30s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes:.0f}m{shown}" if minutes else shown
