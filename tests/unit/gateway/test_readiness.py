"""A gateway is ready once it has looked for all workers, whether it has found models or not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.gateway.routing import pool as pool_module
from services.gateway.routing.inference_client import Timeouts, inference_service
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker_connection import Connections
from services.stack.ports import free_ports
from tests.support.scripted_worker import scripted_worker
from tests.support.waits import until


@asynccontextmanager
async def opened(*targets: str) -> AsyncIterator[WorkerPool[Any, Any, Any]]:
    """Yield the pool of a gateway that has just started."""
    pool: WorkerPool[Any, Any, Any] = WorkerPool(
        inference_service(Timeouts(5, 60)),
        targets,
        endpoint="/chat/completions",
        expected=("expected",),
        resolve_seconds=60,
        connections=Connections(None, server_name=""),
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


def answering(monkeypatch: pytest.MonkeyPatch, answers: Callable[[], Any]) -> None:
    """Have all names resolved by `answers`."""

    async def getaddrinfo(self: object, host: str, port: int, **options: object) -> Any:
        return answers()

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


async def test_a_gateway_without_workers_is_ready() -> None:
    async with opened() as pool:
        assert pool.has_looked()


async def test_a_gateway_whose_workers_do_not_exist_yet_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name() -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answering(monkeypatch, no_such_name)
    async with opened("vilix-m.ai.svc:9001") as pool:
        assert pool.has_looked()
        assert not pool.any_ready()


async def test_a_gateway_whose_worker_rejects_connections_is_ready() -> None:
    async with opened(f"127.0.0.1:{free_ports(1)[0]}") as pool:
        await until(pool.has_looked)
        assert not pool.any_ready()


async def test_a_gateway_is_not_ready_before_it_knows_the_models_of_its_workers() -> None:
    """Otherwise it would reject requests for models that other gateways serve."""
    (port,) = free_ports(1)
    async with scripted_worker(port), opened(f"127.0.0.1:{port}") as pool:
        assert not pool.has_looked()
        await until(pool.has_looked)
        assert pool.any_ready()


async def test_a_gateway_asks_again_at_once_while_the_name_server_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter(range(3))

    def later() -> Any:
        if next(failures, None) is not None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return []

    answering(monkeypatch, later)
    async with opened("vilix-m.ai.svc:9001") as pool:
        assert not pool.has_looked()
        await until(pool.has_looked)


async def test_a_gateway_is_ready_after_a_while_even_if_no_name_server_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never() -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    answering(monkeypatch, never)
    async with opened("vilix-m.ai.svc:9001") as pool:
        assert not pool.has_looked()
        monkeypatch.setattr(pool_module, "LOOK_SECONDS", 0)
        assert pool.has_looked()
