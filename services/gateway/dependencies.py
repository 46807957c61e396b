"""What the handlers work with, made once when the gateway starts and closed when it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from services.gateway.edge.body_budget import BodyBudget, budget_sizes
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.image_parts import ImageLimits
from services.gateway.redis.redis_connection import connect
from services.gateway.redis.redis_link import RedisLink
from services.gateway.redis.redis_watch import RedisWatch
from services.gateway.routing.embeddings_client import EmbeddingsWorkers, embeddings_service
from services.gateway.routing.inference_client import InferenceWorkers, Patience, inference_service
from services.gateway.routing.worker_connection import Connections
from services.gateway.routing.workers import Workers
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy.census import Census
from services.gateway.tenancy.keyring import Keyring
from services.gateway.tenancy.lease import Leases
from services.gateway.tenancy.local_limits import LocalLimits
from services.gateway.tenancy.tiers import Tiers
from services.runtime.certificates import Certificates


@dataclass(frozen=True)
class Dependencies:
    """The connections of a running gateway."""

    settings: GatewaySettings
    link: RedisLink
    redis_watch: RedisWatch
    keyring: Keyring
    tiers: Tiers
    leases: Leases
    workers: InferenceWorkers
    embedders: EmbeddingsWorkers
    image_fetcher: ImageFetcher
    image_limits: ImageLimits
    bodies: BodyBudget


def dependencies(request: Request) -> Dependencies:
    """Those of the gateway that serves this request."""
    found: Dependencies = request.app.state.dependencies
    return found


def note_model(request: Request, model: str) -> None:
    """Note which model a request names, for its line in the log, and for the metrics, which know only those that there are."""
    gateway = dependencies(request)
    request.state.log["model"] = model[:128]
    request.state.model = model if gateway.workers.knows(model) or gateway.embedders.knows(model) else "unknown"


def check(settings: GatewaySettings) -> None:
    """Raises ValueError and OSError when the settings cannot be right, before anything is started."""
    connect(settings.redis_url, timeout=settings.redis_timeout)
    Tiers(settings.tiers_file)
    _body_budget(settings)
    if settings.renew_seconds >= settings.lease_seconds:
        raise ValueError(
            f"VILIX_RENEW_SECONDS={settings.renew_seconds} must be less than VILIX_LEASE_SECONDS={settings.lease_seconds}"
        )


def _body_budget(settings: GatewaySettings) -> BodyBudget:
    total, per_key = budget_sizes(
        settings.bodies_bytes, settings.key_bodies_bytes, max_body_bytes=settings.max_body_bytes
    )
    return BodyBudget(total=total, per_key=per_key)


def _image_limits(settings: GatewaySettings) -> ImageLimits:
    return ImageLimits(
        settings.max_images, settings.max_image_bytes, settings.max_images_bytes, settings.listed_image_hosts()
    )


@asynccontextmanager
async def connected(settings: GatewaySettings) -> AsyncIterator[Dependencies]:
    """Connect to Redis and the workers. Neither needs to be there yet."""
    tiers = Tiers(settings.tiers_file)
    link = RedisLink(connect(settings.redis_url, timeout=settings.redis_timeout), timeout=settings.redis_timeout)
    redis_watch = RedisWatch(link, seconds=settings.redis_check_seconds)
    census = Census(link)
    leases = Leases(
        link,
        LocalLimits(settings.redis_away_policy, lambda: census.gateways),
        lease_seconds=settings.lease_seconds,
        renew_seconds=settings.renew_seconds,
        reserve_output=settings.reserve_output,
    )
    connections = Connections(
        Certificates(settings.tls_dir) if settings.tls_dir else None, server_name=settings.tls_server_name
    )
    patience = Patience(settings.idle_seconds, settings.max_stream_seconds)
    workers: InferenceWorkers = Workers(
        inference_service(patience),
        settings.worker_targets(),
        expected=settings.expected(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    embedders: EmbeddingsWorkers = Workers(
        embeddings_service(patience),
        settings.embeddings_targets(),
        expected=settings.expected_embeddings(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    workers.others, embedders.others = (embedders,), (workers,)
    image_fetcher = ImageFetcher(seconds=settings.image_seconds)
    tiers.open()
    redis_watch.open()
    census.open()
    leases.open()
    await workers.open()
    await embedders.open()
    try:
        keyring = Keyring(link, grace_seconds=settings.auth_grace)
        bodies = _body_budget(settings)
        yield Dependencies(
            settings,
            link,
            redis_watch,
            keyring,
            tiers,
            leases,
            workers,
            embedders,
            image_fetcher,
            _image_limits(settings),
            bodies,
        )
    finally:
        await image_fetcher.close()
        await embedders.close()
        await workers.close()
        await leases.close()
        await census.close()
        await redis_watch.close()
        await tiers.close()
        await link.close()
