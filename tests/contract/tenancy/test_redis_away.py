"""Redis is killed, frozen or restarted: what the gateway still serves, and that no usage is lost."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack.ports import free_ports
from tests.contract.tenancy.conftest import URL, body, client_of, holds_nothing, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.contract.tenancy.redis_servers import Server, running
from tests.support.fault_table import record
from tests.support.gateway import running_gateway, until_ready
from tests.support.waits import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    with running([server]):
        yield server


@pytest.fixture
def grace(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"VILIX_REDIS_TIMEOUT": "0.3", "VILIX_RENEW_SECONDS": "0.2", **getattr(request, "param", {})}


@pytest.fixture
async def gateway(
    server: Server, worker: CountingWorker, settings: dict[str, str], grace: dict[str, str], tmp_path: Path
) -> AsyncIterator[str]:
    with running_gateway(server.url, worker.address, tmp_path / "log", **{**settings, **grace}) as (url, _):
        await until_ready(url)
        yield url


async def redis_is(gateway: str, word: str) -> None:
    async with client_of(gateway) as client:

        async def seen() -> bool:
            return bool((await client.get("/healthz")).json()["redis"] == word)

        await until(seen)


async def status(client: httpx.AsyncClient, **fields: object) -> int:
    return (await client.post(URL, json=body(3, **fields))).status_code


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_a_known_key_is_served_without_redis_and_its_usage_is_recorded_afterwards(
    server: Server, gateway: str, own_redis: Redis, fault: str
) -> None:
    key, secret = await keys.create(own_redis, name="known")
    _, unknown = await keys.create(own_redis, name="never seen")
    async with client_of(gateway, secret) as client, client_of(gateway, unknown) as unknown_client:
        assert await status(client) == 200
        if fault == "frozen":
            server.signal(signal.SIGSTOP)
        else:
            server.kill()
        try:
            assert [await status(client) for _ in range(5)] == [200] * 5
            assert await status(unknown_client) == 503
            assert (await client.get("/readyz")).status_code == 200, "the gateway stays ready without Redis"
            await redis_is(gateway, "unreachable")
        finally:
            if fault == "frozen":
                server.signal(signal.SIGCONT)
            else:
                server.start()
        await redis_is(gateway, "ok")
        assert await status(unknown_client) == 200

        async def all_recorded() -> bool:
            total = await used(own_redis, key)
            return (total.requests, total.prompt_tokens, total.completion_tokens) == (6, 30, 18)

        await until(all_recorded)
    record(
        f"Valkey {fault}, then back",
        "recently verified keys are served, all others get 503; afterwards both are served, and all usage is billed",
        "5 of 5 served meanwhile; 503; 6 of 6 billed",
        met=True,
    )


async def test_a_stream_outlives_an_outage_and_is_billed_to_the_token(
    server: Server, gateway: str, own_redis: Redis, worker: CountingWorker
) -> None:
    worker.pace = 0.02
    key, secret = await keys.create(own_redis, name="streaming", limits=Limits(concurrency=1))
    async with client_of(gateway, secret) as client:
        stream = asyncio.create_task(client.post(URL, json=body(150, stream=True)))

        async def has_begun() -> bool:
            return (await used(own_redis, key)).completion_tokens > 0

        await until(has_begun)
        server.signal(signal.SIGSTOP)
        await redis_is(gateway, "unreachable")
        server.signal(signal.SIGCONT)
        assert (await stream).text.endswith("data: [DONE]\n\n")
    await until(lambda: holds_nothing(own_redis, key))
    total = await used(own_redis, key)
    assert (total.requests, total.prompt_tokens, total.completion_tokens) == (1, 5, 150)


@pytest.mark.parametrize("grace", [{"VILIX_AUTH_GRACE": "1"}, {"VILIX_AUTH_GRACE": "0"}], indirect=True)
async def test_after_the_grace_period_no_key_is_valid(
    server: Server, gateway: str, own_redis: Redis, grace: dict[str, str]
) -> None:
    _, secret = await keys.create(own_redis, name="known")
    async with client_of(gateway, secret) as client:
        assert await status(client) == 200
        server.kill()

        async def rejected() -> bool:
            return await status(client) == 503

        if grace["VILIX_AUTH_GRACE"] == "0":
            assert await rejected()
        await until(rejected)
        server.start()
        await redis_is(gateway, "ok")
        assert await status(client) == 200


@pytest.mark.parametrize(
    ("grace", "accepted"),
    [
        ({"VILIX_REDIS_AWAY_POLICY": "local"}, 4),
        ({"VILIX_REDIS_AWAY_POLICY": "open"}, 10),
        ({"VILIX_REDIS_AWAY_POLICY": "closed"}, 0),
    ],
    indirect=["grace"],
    ids=["local", "open", "closed"],
)
@pytest.mark.usefixtures("grace")
async def test_limits_follow_the_policy(server: Server, gateway: str, own_redis: Redis, accepted: int) -> None:
    _, secret = await keys.create(own_redis, name="limited", limits=Limits(rpm=4))
    async with client_of(gateway, secret) as client:
        assert (await client.get("/api/models")).status_code == 200
        server.kill()
        statuses = Counter([await status(client) for _ in range(10)])
    assert statuses[200] == accepted
    assert statuses[503 if accepted == 0 else 429] == 10 - accepted


async def test_each_gateway_enforces_its_share_of_the_limits(
    server: Server, worker: CountingWorker, settings: dict[str, str], own_redis: Redis, tmp_path: Path
) -> None:
    _, secret = await keys.create(own_redis, name="shared", limits=Limits(rpm=6))
    metrics = free_ports(1)[0]
    more = {**settings, "VILIX_REDIS_TIMEOUT": "0.3", "VILIX_METRICS_PORT": str(metrics)}

    with running_gateway(server.url, worker.address, tmp_path / "a", **settings) as (other, _):
        await until_ready(other)

        async def is_registered() -> bool:
            return bool(await own_redis.zcard("vilix:gateways") == 1)

        await until(is_registered)
        with running_gateway(server.url, worker.address, tmp_path / "b", **more) as (url, _):
            await until_ready(url)
            async with client_of(url, secret) as client, client_of(f"http://127.0.0.1:{metrics}") as scraper:
                assert (await client.get("/api/models")).status_code == 200

                async def has_counted() -> bool:
                    return "\nvilix_gateways 2.0\n" in (await scraper.get("/metrics")).text

                # A gateway learns the number of gateways with its own heartbeat.
                await until(has_counted)
                server.kill()
                assert Counter([await status(client) for _ in range(10)]) == {200: 3, 429: 7}
                shown = (await scraper.get("/metrics")).text
                assert 'vilix_redis_away_decisions_total{decision="limits_local"} 10.0' in shown
                assert 'vilix_redis_away_decisions_total{decision="key_grace"}' in shown
                assert 'vilix_limits_rejected_total{limit="rpm"} 7.0' in shown
