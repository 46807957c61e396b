"""The audit log in the admin API."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from redis.asyncio import Redis

from services.gateway.endpoints import admin_examples
from services.gateway.redis import audit_log
from services.gateway.redis.audit_log import AuditEntry
from services.gateway.redis.link import RedisLink

MOST_ENTRIES: Final = 1000
_LAST_SECOND: Final = 2**33
"""A time in the 23rd century, in seconds since 1970."""

router: Final = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", responses=admin_examples.AUDIT)
async def list_changes(
    request: Request,
    since: Annotated[
        float, Query(ge=0, le=_LAST_SECOND, description="The beginning, in seconds since 1970. Default: of all.")
    ] = 0,
    until: Annotated[
        float | None, Query(ge=0, le=_LAST_SECOND, description="The end, in seconds since 1970. Default: now.")
    ] = None,
    subject: Annotated[
        str | None,
        Query(max_length=256, description="The id or name of a key, an alias, `tiers` or `prices`. Default: all."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES, description="The most entries.")] = 100,
) -> list[AuditEntry]:
    """List the latest changes of keys, aliases, tiers and prices, latest first. Entries are kept for 400 days."""
    link: RedisLink = request.app.state.link
    redis: Redis = link.redis
    end = time.time() + 1 if until is None else until
    return await audit_log.read(redis, since=since, until=end, subject=subject, limit=limit)
