"""A gateway that cannot start closes everything that it has opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.redis.link import RedisLink
from services.gateway.redis.watch import RedisWatch
from services.gateway.routing.pool import WorkerPool
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy.gateway_registry import GatewayRegistry
from services.gateway.tenancy.reservation import Reservations
from services.gateway.tenancy.tiers import Tiers
from services.gateway.wiring import connected
from tests.support.waits import until

OPENED = (RedisLink, Tiers, RedisWatch, GatewayRegistry, Reservations, WorkerPool, WorkerPool)
"""The parts of a gateway, in the order in which they are opened."""


@pytest.mark.parametrize(
    ("failing", "before"),
    [
        ((Tiers, "open"), 2),
        ((RedisWatch, "open"), 3),
        ((GatewayRegistry, "open"), 4),
        ((Reservations, "open"), 5),
        ((WorkerPool, "open"), 6),
        ((ImageFetcher, "__init__"), 7),
    ],
)
async def test_a_failing_start_closes_the_parts_that_were_opened(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[Any, str], before: int
) -> None:
    closed: list[type] = []

    def noting(kind: Any, close: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def noted(self: Any) -> None:
            closed.append(kind)
            await close(self)

        return noted

    def broken(*_: object, **__: object) -> None:
        raise OSError("it cannot be opened")

    for kind in set(OPENED):
        monkeypatch.setattr(kind, "close", noting(kind, kind.close))
    monkeypatch.setattr(*failing, broken)
    settings = GatewaySettings(redis_url="redis://127.0.0.1:1/0", inference_workers="127.0.0.1:1")
    tasks = asyncio.all_tasks()
    with pytest.raises(OSError, match="cannot be opened"):
        async with connected(settings):
            pytest.fail("it has started")
    assert closed == list(reversed(OPENED[:before]))
    # gRPC's own tasks of a call end in a later turn of the loop than its channel is closed.
    await until(lambda: asyncio.all_tasks() == tasks, what="every task of the parts has ended")
