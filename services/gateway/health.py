"""GET /healthz and /readyz: for load balancers and people, without a key."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.dependencies import dependencies
from services.gateway.errors import JSON
from services.gateway.redis_link import RedisAwayError


async def healthz(request: Request) -> Response:
    """Say that the process lives, and what it sees. Always 200: what it sees is not its own health."""
    gateway = dependencies(request)
    known = {**gateway.workers.models(), **gateway.embedders.models()}
    models = {model_id: model is not None for model_id, model in known.items()}
    try:
        await gateway.link.run(lambda redis: redis.ping())
        redis = "full" if gateway.link.full else "ok"
    except RedisAwayError:
        redis = "unreachable"
    condition = gateway.redis_condition.now
    risks = [cause for cause, holds in condition.risks().items() if holds]
    shown = {
        "status": "ok",
        "redis": redis,
        "redis_eviction": condition.eviction,
        "redis_persistence": condition.persistence,
        "redis_risks": risks,
        "models": models,
    }
    return Response(orjson.dumps(shown), media_type=JSON)


async def readyz(request: Request) -> Response:
    """Say whether requests should be sent here: 200 when some model can answer, else 503.

    Redis does not count: one blip of it must not take every gateway out of service.
    """
    gateway = dependencies(request)
    ready = gateway.workers.any_ready() or gateway.embedders.any_ready()
    return Response(orjson.dumps({"ready": ready}), 200 if ready else 503, media_type=JSON)
