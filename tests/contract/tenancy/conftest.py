"""Three real gateway processes on one real Valkey, with a worker that counts the tokens of each request."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.redis.connection import connect, disconnect
from services.gateway.tenancy import keys, limits_script, usage
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Scope, Subject
from services.stack.ports import free_ports
from tests.contract.tenancy.counting_worker import CountingWorker, counting_worker
from tests.contract.tenancy.redis_servers import Server, running
from tests.support.gateway import running_gateway, until_ready
from tests.support.valkey import running_valkey

URL = "/api/chat/completions"
GATEWAYS = 3
ADMIN_TOKEN = "a-token-for-tests-only"
RESERVATION_SECONDS = 2.0
RENEW_SECONDS = 0.5
REDIS_SECONDS = 5.0
"""How long tests wait for a reply of Redis."""
ROUNDS = 200 if os.environ.get("VILIX_FAULTS") == "full" else 20
"""How often the tests of exactness are repeated."""
TIERS = """
tiers:
  free: {rpm: 1000, concurrency: 2, models: {large: {concurrency: 1}}}
  patient: {concurrency: 1, queue: true, queue_seconds: 20, queue_length: 2}
  hasty: {concurrency: 1, queue: true, queue_seconds: 0.3}
"""

Gateway = tuple[str, "subprocess.Popen[bytes]"]


def body(tokens: int = 3, **fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, **fields}


@asynccontextmanager
async def client_of(gateway: str, secret: str = "") -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    unlimited = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway, headers=headers, timeout=30, limits=unlimited) as client:
        yield client


async def state_of(redis: Redis, key: Key, model: str = "small") -> dict[str, Scope]:
    return (await limits_script.show(redis, Subject(key, model, key.limits, UNLIMITED))).scopes


async def holds_nothing(redis: Redis, key: Key) -> bool:
    scope = (await state_of(redis, key))["key"]
    return scope.slots == scope.reserved == 0


async def used(redis: Redis, key: Key) -> usage.Counts:
    """Return the usage of a key in all its days."""
    names = [str(name) async for name in redis.scan_iter(f"vilix:*:usage:{key.id}:????-??")]
    found = await usage.of_periods(redis, key, [name.rpartition(":")[2] for name in names])
    return sum((each.counts for each in found), usage.Counts())


async def records(redis: Redis, key: Key) -> list[dict[str, str]]:
    """Return a key's records in the usage stream."""
    found = await redis.xrange(f"vilix:{{{key.shard}}}:usage")
    return [fields for _, fields in found if fields["key"] == key.id]


def log_lines(path: Path, message: str) -> list[dict[str, object]]:
    """Return the lines of a JSON log with this message."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("message", line.get("event")) == message]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run a Redis of the test's own, which the test may stop or configure."""
    server = Server(tmp_path / "redis", "--appendonly", "yes")
    with running([server]):
        yield server


@pytest.fixture
async def own_redis(server: Server) -> AsyncIterator[Redis]:
    redis = connect(server.url, timeout=REDIS_SECONDS)
    yield redis
    await disconnect(redis)


@pytest.fixture(scope="session")
async def shared_worker() -> AsyncIterator[CountingWorker]:
    async with counting_worker(free_ports(1)[0]) as worker:
        yield worker


@pytest.fixture
def worker(shared_worker: CountingWorker) -> Iterator[CountingWorker]:
    shared_worker.books.clear()
    shared_worker.left.clear()
    shared_worker.most_running = 0
    yield shared_worker
    shared_worker.pace = 0.0
    shared_worker.going.set()


@pytest.fixture(scope="session")
def tiers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiers") / "tiers.yaml"
    path.write_text(TIERS)
    return path


@pytest.fixture(scope="session")
def admin_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def settings(tiers_file: Path) -> dict[str, str]:
    return {
        "VILIX_TIERS_FILE": str(tiers_file),
        "VILIX_RESERVATION_SECONDS": str(RESERVATION_SECONDS),
        "VILIX_RENEW_SECONDS": str(RENEW_SECONDS),
        "VILIX_RESERVE_OUTPUT": "10",
        "VILIX_MAX_BODY_BYTES": str(20 * 2**20),
        "VILIX_EXPECTED_MODELS": "small,large",
        "VILIX_ALIASES": "configured=large",
    }


@pytest.fixture(scope="session")
async def gateways(
    redis_url: str,
    shared_worker: CountingWorker,
    settings: dict[str, str],
    admin_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[list[str]]:
    logs = tmp_path_factory.mktemp("gateways")
    settings = {**settings, "VILIX_STATE_REDIS_URL": redis_url.removesuffix("/0") + "/1"}
    with ExitStack() as stack:
        urls = []
        for number in range(GATEWAYS):
            admin = {"VILIX_ADMIN_PORT": str(admin_port), "VILIX_ADMIN_TOKEN": ADMIN_TOKEN} if number == 0 else {}
            url, _ = stack.enter_context(
                running_gateway(redis_url, shared_worker.address, logs / f"{number}.log", **settings, **admin)
            )
            urls.append(url)
        for url in urls:
            await until_ready(url)
        yield urls


@pytest.fixture
async def new_key(redis: Redis) -> Callable[..., Awaitable[tuple[Key, str]]]:
    async def create(**draft: Any) -> tuple[Key, str]:
        count = await redis.hlen(keys.NAMES)
        return await keys.create(redis, name=f"key-{count}-{id(draft)}", **draft)

    return create
