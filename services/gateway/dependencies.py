"""What the handlers work with, made once when the gateway starts and closed when it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.certificates import Certificates
from services.gateway.embeddings_client import EmbeddingsWorkers, embeddings_service
from services.gateway.inference_client import InferenceWorkers, Patience, inference_service
from services.gateway.limits import Limits
from services.gateway.settings import GatewaySettings
from services.gateway.worker_connection import Connections
from services.gateway.workers import Workers

CONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Dependencies:
    """The connections of a running gateway."""

    settings: GatewaySettings
    redis: Redis
    limits: Limits
    workers: InferenceWorkers
    embedders: EmbeddingsWorkers


def dependencies(request: Request) -> Dependencies:
    """Those of the gateway that serves this request."""
    found: Dependencies = request.app.state.dependencies
    return found


@asynccontextmanager
async def connected(settings: GatewaySettings) -> AsyncIterator[Dependencies]:
    """Connect to Redis and the workers. Neither needs to be there yet."""
    redis = Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=settings.redis_timeout,
        socket_connect_timeout=max(settings.redis_timeout, CONNECT_SECONDS),
        # One more attempt, on a new connection: the old one may have ended with an earlier Redis.
        retry=Retry(NoBackoff(), 1),
    )
    connections = Connections(
        Certificates(settings.tls_dir) if settings.tls_dir else None, server_name=settings.tls_server_name
    )
    workers: InferenceWorkers = Workers(
        inference_service(Patience(settings.idle_seconds, settings.max_stream_seconds)),
        settings.worker_targets(),
        expected=settings.expected(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    embedders: EmbeddingsWorkers = Workers(
        embeddings_service(seconds=settings.max_stream_seconds),
        settings.embeddings_targets(),
        expected=settings.expected_embeddings(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    workers.others, embedders.others = (embedders,), (workers,)
    await workers.open()
    await embedders.open()
    try:
        yield Dependencies(settings, redis, Limits(redis), workers, embedders)
    finally:
        await embedders.close()
        await workers.close()
        await redis.aclose()
