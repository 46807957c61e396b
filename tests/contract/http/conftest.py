"""A real gateway process in front of a scripted worker, with a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.stack.ports import free_ports
from tests.support.gateway import running_gateway, until_ready
from tests.support.scripted_worker import ScriptedWorker, scripted_worker
from tests.support.valkey import running_valkey
from tests.support.waits import until


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
async def api_key(redis_url: str) -> str:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="tests")
        return secret


@pytest.fixture(scope="session")
def worker_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def worker(worker_port: int) -> AsyncIterator[ScriptedWorker]:
    async with scripted_worker(worker_port) as worker:
        yield worker


@pytest.fixture(scope="session")
def gateway_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway") / "gateway.log"


@pytest.fixture(scope="session")
def state_redis_url(redis_url: str) -> str:
    """Return the URL of the database with stored responses."""
    return redis_url.removesuffix("/0") + "/1"


@pytest.fixture(scope="session")
def metrics_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def gateway_url(
    redis_url: str, state_redis_url: str, worker_port: int, metrics_port: int, gateway_log: Path
) -> Iterator[str]:
    settings = {
        "VILIX_STATE_REDIS_URL": state_redis_url,
        "VILIX_STORE_SWEEP_SECONDS": "0.3",
        "VILIX_METRICS_PORT": str(metrics_port),
    }
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", gateway_log, **settings) as (url, _):
        yield url


@pytest.fixture
async def http(gateway_url: str, api_key: str, worker: ScriptedWorker) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with a key, for a gateway that has found the worker."""
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=gateway_url, headers=headers, timeout=20) as client:
        # The gateway may still know the worker of the previous test.
        await until(worker.listed.is_set, what="the gateway has asked the worker for its models")
        await until_ready(gateway_url)
        yield client
