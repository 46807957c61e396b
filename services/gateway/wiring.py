"""Creates the parts of a gateway when it starts, and closes them when it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from services.gateway.background import BackgroundWork
from services.gateway.edge.body_budget import BodyBudget, budget_sizes
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.limits import ImageLimits
from services.gateway.key_ring import KeyRing
from services.gateway.live_requests import LiveRequests
from services.gateway.redis.connection import connect
from services.gateway.redis.link import RedisLink
from services.gateway.redis.watch import RedisWatch
from services.gateway.routing.aliases import Aliases
from services.gateway.routing.aliases import parse as parse_aliases
from services.gateway.routing.embeddings_client import EmbeddingsPool, embeddings_service
from services.gateway.routing.fleet import Fleet
from services.gateway.routing.inference_client import InferencePool, Timeouts, inference_service
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker_connection import Connections
from services.gateway.settings import GatewaySettings
from services.gateway.stored_responses.revoked_keys import RevokedKeys
from services.gateway.stored_responses.store import ResponseStore
from services.gateway.tenancy import keys
from services.gateway.tenancy.admission import AdmissionControl
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.gateway_registry import GatewayRegistry
from services.gateway.tenancy.key_cache import KeyCache
from services.gateway.tenancy.prices import Prices
from services.gateway.tenancy.receipts import Receipts
from services.gateway.tenancy.reservation import Reservations
from services.gateway.tenancy.tiers import Tiers
from services.runtime.certificates import Certificates


@dataclass(frozen=True)
class Gateway:
    """The parts of a running gateway."""

    settings: GatewaySettings
    link: RedisLink
    redis_watch: RedisWatch
    key_cache: KeyCache
    tiers: Tiers
    prices: Prices
    admission: AdmissionControl
    fleet: Fleet
    aliases: Aliases
    image_fetcher: ImageFetcher
    image_limits: ImageLimits
    bodies: BodyBudget
    live_requests: LiveRequests
    key_ring: KeyRing
    receipts: Receipts
    store: ResponseStore | None
    """The store of responses; None if there is none."""
    background: BackgroundWork


def check(settings: GatewaySettings) -> None:
    """Raise ValueError or OSError if the settings are not valid. Called before anything is started."""
    connect(settings.redis_url, timeout=settings.redis_timeout)
    Tiers(settings.tiers_file)
    Prices(settings.prices)
    parse_aliases(settings.aliases)
    KeyRing(settings.token_keys_file)
    _store(settings)
    _body_budget(settings)
    if settings.renew_seconds >= settings.reservation_seconds:
        raise ValueError(
            f"VILIX_RENEW_SECONDS={settings.renew_seconds} must be less than "
            f"VILIX_RESERVATION_SECONDS={settings.reservation_seconds}"
        )


@asynccontextmanager
async def connected(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Open the parts of a gateway. Neither Redis nor the workers need to be available yet.

    All parts are closed in the opposite order, also if a later one cannot be opened.
    """
    async with AsyncExitStack() as stack:
        link = RedisLink(connect(settings.redis_url, timeout=settings.redis_timeout), timeout=settings.redis_timeout)
        stack.push_async_callback(link.close)
        tiers = Tiers(settings.tiers_file)
        stack.push_async_callback(tiers.close)
        tiers.open(link)
        prices = Prices(settings.prices)
        stack.push_async_callback(prices.close)
        prices.open(link)
        redis_watch = RedisWatch(link, seconds=settings.redis_check_seconds)
        stack.push_async_callback(redis_watch.close)
        redis_watch.open()
        reservations = await _open_reservations(settings, link, stack)
        fleet = await _open_fleet(settings, stack)
        aliases = Aliases(link, parse_aliases(settings.aliases))
        stack.push_async_callback(aliases.close)
        aliases.open()
        image_fetcher = ImageFetcher(seconds=settings.image_seconds)
        stack.push_async_callback(image_fetcher.close)
        background = BackgroundWork(settings.drain_seconds)
        receipts = Receipts(link, most=settings.receipts)
        stack.push_async_callback(receipts.close)
        receipts.open()
        key_cache = KeyCache(link, grace_seconds=settings.auth_grace)
        gateway = Gateway(
            settings,
            link,
            redis_watch,
            key_cache,
            tiers,
            prices,
            AdmissionControl(link, key_cache, tiers, reservations, prices),
            fleet,
            aliases,
            image_fetcher,
            _image_limits(settings),
            _body_budget(settings),
            LiveRequests(),
            KeyRing(settings.token_keys_file),
            receipts,
            await _open_store(settings, link, stack),
            background,
        )
        # Background work ends before anything that it uses is closed.
        stack.push_async_callback(background.close)
        yield gateway


async def _open_reservations(settings: GatewaySettings, link: RedisLink, stack: AsyncExitStack) -> Reservations:
    gateway_registry = GatewayRegistry(link)
    stack.push_async_callback(gateway_registry.close)
    gateway_registry.open()
    reservations = Reservations(
        link,
        FallbackLimits(settings.redis_away_policy, lambda: gateway_registry.gateways),
        reservation_seconds=settings.reservation_seconds,
        renew_seconds=settings.renew_seconds,
        reserve_output=settings.reserve_output,
        receipts=settings.receipts,
    )
    stack.push_async_callback(reservations.close)
    reservations.open()
    return reservations


async def _open_fleet(settings: GatewaySettings, stack: AsyncExitStack) -> Fleet:
    certificates = Certificates(settings.tls_dir) if settings.tls_dir else None
    if certificates is not None:
        certificates.export_expiry()
    connections = Connections(certificates, server_name=settings.tls_server_name)
    timeouts = Timeouts(settings.idle_seconds, settings.max_stream_seconds)
    inference: InferencePool = WorkerPool(
        inference_service(timeouts),
        settings.worker_targets(),
        endpoint="/chat/completions",
        expected=settings.expected(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    embeddings: EmbeddingsPool = WorkerPool(
        embeddings_service(timeouts),
        settings.embeddings_targets(),
        endpoint="/embeddings",
        expected=settings.expected_embeddings(),
        resolve_seconds=settings.resolve_seconds,
        connections=connections,
    )
    stack.push_async_callback(inference.close)
    await inference.open()
    stack.push_async_callback(embeddings.close)
    await embeddings.open()
    return Fleet(inference, embeddings)


def _store(settings: GatewaySettings) -> ResponseStore | None:
    if not settings.state_redis_url or not settings.store_responses:
        return None
    return ResponseStore(settings.state_redis_url, lease_ms=round(settings.reservation_seconds * 1000))


async def _open_store(settings: GatewaySettings, link: RedisLink, stack: AsyncExitStack) -> ResponseStore | None:
    store = _store(settings)
    if store is not None:
        stack.push_async_callback(store.close)
        revocation = RevokedKeys(store, partial(_dead_keys, link), seconds=settings.store_sweep_seconds)
        stack.push_async_callback(revocation.close)
        revocation.open()
    return store


async def _dead_keys(link: RedisLink, key_ids: Sequence[str]) -> list[str]:
    """Return the keys that no longer exist or were revoked. Raises RedisAwayError."""
    return [key_id for key_id in key_ids if not await link.run(partial(keys.is_live, key_id=key_id))]


def _image_limits(settings: GatewaySettings) -> ImageLimits:
    return ImageLimits(
        settings.max_images, settings.max_image_bytes, settings.max_images_bytes, settings.listed_image_hosts()
    )


def _body_budget(settings: GatewaySettings) -> BodyBudget:
    total, per_key = budget_sizes(
        settings.bodies_bytes, settings.key_bodies_bytes, max_body_bytes=settings.max_body_bytes
    )
    return BodyBudget(total=total, per_key=per_key)
