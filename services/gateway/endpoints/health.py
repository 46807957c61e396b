"""GET /healthz and /readyz: for load balancers and people, without a key."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.endpoints.connection import gateway_of
from services.gateway.redis.redis_link import RedisAwayError, RedisRejectedError


async def healthz(request: Request) -> Response:
    """Say that the process lives, and what it sees. Always 200: what it sees is not its own health."""
    gateway = gateway_of(request)
    models = {model_id: model is not None for model_id, model in gateway.fleet.models().items()}
    try:
        await gateway.link.run(lambda redis: redis.ping())
        redis = str(gateway.link.rejection or "ok")
    except RedisRejectedError as error:
        redis = str(error.cause)
    except RedisAwayError:
        redis = "unreachable"
    stored = gateway.redis_watch.state
    care = {"redis_eviction": stored.eviction, "redis_persistence": str(stored.persistence)}
    return Response(
        orjson.dumps({"status": "ok", "redis": redis, **care, "models": models}), media_type="application/json"
    )


async def readyz(request: Request) -> Response:
    """Say whether requests should be sent here: 200 when some model can answer, else 503.

    Redis does not count: one blip of it must not take every gateway out of service.
    """
    ready = gateway_of(request).fleet.any_ready()
    return Response(orjson.dumps({"ready": ready}), 200 if ready else 503, media_type="application/json")
