"""GET /usage: what a key has used, and what remains of its limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.credential import read_openai
from services.gateway.endpoints.request_record import record_of
from services.gateway.errors import unavailable
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import limits_script
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key_cache import KeyCache
from services.gateway.tenancy.limits import COSTS, Limits
from services.gateway.tenancy.limits_script import Scope
from services.gateway.tenancy.prices import Prices
from services.gateway.tenancy.rate_limit_errors import next_day, next_month, next_week
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.usage import WEEK, Counts, Usage, of_periods, week_of
from services.runtime.messages.message import Message


class OwnUsage:
    """The endpoint that shows the usage of the caller's key."""

    def __init__(self, link: RedisLink, key_cache: KeyCache, tiers: Tiers, prices: Prices) -> None:
        """Read usage through `link`, and limits from keys and `tiers`. What it costs is shown if there are `prices`."""
        self._link: Final = link
        self._key_cache: Final = key_cache
        self._tiers: Final = tiers
        self._prices: Final = prices

    async def own_usage(self, request: Request) -> Response:
        """Return what the caller's key used today and this month, its limits, and what remains of them."""
        key = (await authenticate(read_openai(request.headers), self._key_cache)).key
        record_of(request).key_id = key.id
        subject = self._tiers.subject(key, "")
        try:
            decision = await self._link.run(lambda redis: limits_script.show(redis, subject))
            now = datetime.fromtimestamp(decision.seconds, UTC)
            day, month = f"{now:%Y-%m-%d}", f"{now:%Y-%m}"
            week = week_of(now)
            used = await self._link.run(lambda redis: of_periods(redis, key, [day, month, week]))
        except RedisAwayError:
            raise unavailable(Message("usage_not_read")) from None
        currency = self._prices.currency
        has_cost = currency is not None
        of_models = {model: self._tiers.subject(key, model).model_limits for model in self._tiers.limited_models(key)}
        usage = {
            "object": "usage",
            "key": {"id": key.id, "name": key.name, "expires": key.expires, "tier": key.tier},
            "today": _period(day, next_day(now), used, has_cost=has_cost),
            "month": _period(month, next_month(now), used, has_cost=has_cost),
            "limits": _shown(dict(subject.limits), has_cost=has_cost),
            "remaining": _shown(remaining(subject.limits, decision.scopes["key"]), has_cost=has_cost),
            "model_limits": {model: _shown(dict(limits), has_cost=has_cost) for model, limits in of_models.items()},
            "running": decision.scopes["key"].slots,
            "reserved_tokens": decision.scopes["key"].reserved,
        }
        if currency is not None:
            usage |= {
                "week": {"period": week.removeprefix(WEEK), "ends": _time(next_week(now)), "cost": _cost(week, used)},
                "reserved_cost": decision.scopes["key"].reserved_cost,
                "currency": currency.currency,
                "decimals": currency.decimals,
            }
        return Response(orjson.dumps(usage), media_type="application/json")


def remaining(limits: Limits, scope: Scope) -> dict[str, int | None]:
    """Return what remains of each limit, None without a limit. Tokens that running requests reserve do not remain."""

    def left(limit: int | None, used: int) -> int | None:
        return None if limit is None else max(0, limit - used)

    return {
        "rpm": scope.requests,
        "tpm": scope.tokens,
        "concurrency": left(limits.concurrency, scope.slots),
        "daily_tokens": left(limits.daily_tokens, scope.daily + scope.reserved),
        "monthly_tokens": left(limits.monthly_tokens, scope.monthly + scope.reserved),
        "daily_cost": left(limits.daily_cost, scope.daily_cost + scope.reserved_cost),
        "weekly_cost": left(limits.weekly_cost, scope.weekly_cost + scope.reserved_cost),
        "monthly_cost": left(limits.monthly_cost, scope.monthly_cost + scope.reserved_cost),
    }


def _shown(limits: Mapping[str, Any], *, has_cost: bool) -> dict[str, Any]:
    """Return limits, without those in money if there are no prices."""
    return {name: value for name, value in limits.items() if has_cost or name not in COSTS}


def _period(name: str, ends: datetime, used: list[Usage], *, has_cost: bool) -> dict[str, Any]:
    in_period = [usage for usage in used if usage.period == name]
    return {
        "period": name,
        "ends": _time(ends),
        **_numbers(sum((usage.counts for usage in in_period), Counts()), has_cost=has_cost),
        "models": {usage.model: _numbers(usage.counts, has_cost=has_cost) for usage in in_period},
    }


def _numbers(counts: Counts, *, has_cost: bool) -> dict[str, int]:
    numbers = counts.numbers()
    cost = numbers.pop("cost", 0)
    return {**numbers, "cost": cost} if has_cost else numbers


def _cost(period: str, used: list[Usage]) -> int:
    return sum(usage.counts.cost or 0 for usage in used if usage.period == period)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
