"""GET /healthz and /readyz: health for load balancers and operators, without a key."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.redis.link import RedisAwayError, RedisLink, RedisRejectedError
from services.gateway.redis.watch import RedisWatch
from services.gateway.routing.fleet import Fleet


class Health:
    """The endpoints about the health of this gateway."""

    def __init__(self, link: RedisLink, redis_watch: RedisWatch, fleet: Fleet) -> None:
        """Report the state of Redis and of the models of `fleet`."""
        self._link: Final = link
        self._redis_watch: Final = redis_watch
        self._fleet: Final = fleet

    async def healthz(self, request: Request) -> Response:
        """Report that the process lives, and the state of Redis and the models. The status is always 200."""
        models = {model_id: model is not None for model_id, model in self._fleet.models().items()}
        try:
            await self._link.run(lambda redis: redis.ping())
            redis = str(self._link.rejection or "ok")
        except RedisRejectedError as error:
            redis = str(error.cause)
        except RedisAwayError:
            redis = "unreachable"
        state = self._redis_watch.state
        durability = {"redis_eviction": state.eviction, "redis_persistence": str(state.persistence)}
        return Response(
            orjson.dumps({"status": "ok", "redis": redis, **durability, "models": models}),
            media_type="application/json",
        )

    async def readyz(self, request: Request) -> Response:
        """Report whether requests should be sent to this gateway: 200 once it has looked for all workers, else 503.

        A gateway without models can answer: with 503 for each model. Otherwise a gateway could not be replaced while
        models are down, and an installation would not be complete until the first weights are loaded. Redis is not
        considered either, because a short failure of it must not take every gateway out of service.
        """
        ready = self._fleet.has_looked()
        return Response(orjson.dumps({"ready": ready}), 200 if ready else 503, media_type="application/json")
