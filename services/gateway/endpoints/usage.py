"""GET /usage: what a key has used, and what remains of its limits."""

from __future__ import annotations

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
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.limits_script import Scope
from services.gateway.tenancy.rate_limit_errors import next_day, next_month
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.usage import Counts, Usage, of_periods
from services.runtime.messages.message import Message


class OwnUsage:
    """The endpoint that shows the usage of the caller's key."""

    def __init__(self, link: RedisLink, key_cache: KeyCache, tiers: Tiers) -> None:
        """Read usage through `link`, and limits from keys and `tiers`."""
        self._link: Final = link
        self._key_cache: Final = key_cache
        self._tiers: Final = tiers

    async def own_usage(self, request: Request) -> Response:
        """Return what the caller's key used today and this month, its limits, and what remains of them."""
        key = (await authenticate(read_openai(request.headers), self._key_cache)).key
        record_of(request).key_id = key.id
        subject = self._tiers.subject(key, "")
        try:
            decision = await self._link.run(lambda redis: limits_script.show(redis, subject))
            now = datetime.fromtimestamp(decision.seconds, UTC)
            day, month = f"{now:%Y-%m-%d}", f"{now:%Y-%m}"
            used = await self._link.run(lambda redis: of_periods(redis, key, [day, month]))
        except RedisAwayError:
            raise unavailable(Message("usage_not_read")) from None
        of_models = {model: self._tiers.subject(key, model).model_limits for model in self._tiers.limited_models(key)}
        usage = {
            "object": "usage",
            "key": {"id": key.id, "name": key.name, "expires": key.expires, "tier": key.tier},
            "today": _period(day, next_day(now), used),
            "month": _period(month, next_month(now), used),
            "limits": dict(subject.limits),
            "remaining": remaining(subject.limits, decision.scopes["key"]),
            "model_limits": {model: dict(limits) for model, limits in of_models.items()},
            "running": decision.scopes["key"].slots,
            "reserved_tokens": decision.scopes["key"].reserved,
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
    }


def _period(name: str, ends: datetime, used: list[Usage]) -> dict[str, Any]:
    in_period = [usage for usage in used if usage.period == name]
    return {
        "period": name,
        "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
        **sum((usage.counts for usage in in_period), Counts()).numbers(),
        "models": {usage.model: usage.counts.numbers() for usage in in_period},
    }
