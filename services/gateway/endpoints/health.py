"""GET /healthz and /readyz: health for load balancers and operators, without a key."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.endpoints.connection import gateway_of
from services.gateway.redis.link import RedisAwayError, RedisRejectedError


async def healthz(request: Request) -> Response:
    """Report that the process lives, and the state of Redis and the models. The status is always 200."""
    gateway = gateway_of(request)
    models = {model_id: model is not None for model_id, model in gateway.fleet.models().items()}
    try:
        await gateway.link.run(lambda redis: redis.ping())
        redis = str(gateway.link.rejection or "ok")
    except RedisRejectedError as error:
        redis = str(error.cause)
    except RedisAwayError:
        redis = "unreachable"
    state = gateway.redis_watch.state
    durability = {"redis_eviction": state.eviction, "redis_persistence": str(state.persistence)}
    return Response(
        orjson.dumps({"status": "ok", "redis": redis, **durability, "models": models}), media_type="application/json"
    )


async def readyz(request: Request) -> Response:
    """Report whether requests should be sent to this gateway: 200 if some model is available, else 503.

    Redis is not considered, because a short failure of it must not take every gateway out of service.
    """
    ready = gateway_of(request).fleet.any_ready()
    return Response(orjson.dumps({"ready": ready}), 200 if ready else 503, media_type="application/json")
