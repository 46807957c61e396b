"""A Redis that evicts, does not persist, or is full: what the gateway says of it, and what requests get."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.gateway import keys
from services.gateway.redis_condition import Condition, read
from services.gateway.redis_connection import connect, disconnect
from services.stack.ports import free_ports
from tests.contract.http.conftest import running_gateway
from tests.contract.tenancy.conftest import URL, body, client_of, ready, until, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.contract.tenancy.redis_servers import Server, cluster, running

NO_CONFIG = ("--rename-command", "CONFIG", "")


@pytest.mark.parametrize(
    ("options", "condition"),
    [
        ((), Condition("noeviction", "off")),
        (("--appendonly", "yes"), Condition("noeviction", "aof")),
        (("--save", "60 1"), Condition("noeviction", "rdb")),
        (("--maxmemory-policy", "allkeys-lru"), Condition("allkeys-lru", "off")),
        (("--maxmemory-policy", "volatile-ttl", *NO_CONFIG, "--appendonly", "yes"), Condition("volatile-ttl", "aof")),
        (NO_CONFIG, Condition("noeviction", "unknown")),
        ((*NO_CONFIG, "--rename-command", "INFO", ""), Condition("unknown", "unknown")),
    ],
)
async def test_what_can_be_read_is_read(tmp_path: Path, options: tuple[str, ...], condition: Condition) -> None:
    server = Server(tmp_path / "redis", *options)
    with running([server]):
        redis = connect(server.url, timeout=5)
        assert await read(redis) == condition
        await disconnect(redis)


async def test_of_a_cluster_the_worst_node_counts(tmp_path: Path) -> None:
    with cluster(tmp_path) as url:
        redis = connect(url, timeout=5)
        assert await read(redis) == Condition("noeviction", "off")
        node = redis.get_primaries()[1]  # type: ignore[attr-defined]  # it is a cluster's
        await redis.config_set("maxmemory-policy", "allkeys-lfu", target_nodes=node)
        assert await read(redis) == Condition("allkeys-lfu", "off")
        await disconnect(redis)


async def test_a_redis_that_may_lose_keys_is_said(
    worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    server, metrics = Server(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru"), free_ports(1)[0]
    more = {**settings, "VILIX_METRICS_PORT": str(metrics)}
    with running([server]), running_gateway(server.url, worker.address, tmp_path / "log", **more) as (url, _):
        await ready(url)
        async with client_of(url) as client, client_of(f"http://127.0.0.1:{metrics}") as scraper:

            async def is_said() -> bool:
                return (await client.get("/healthz")).json()["redis_risks"] == ["eviction", "no_persistence"]

            await until(is_said)
            health = await client.get("/healthz")
            shown = (await scraper.get("/metrics")).text
        assert health.status_code == 200
        assert health.json() | {"models": {}} == {
            "status": "ok",
            "redis": "ok",
            "redis_eviction": "allkeys-lru",
            "redis_persistence": "off",
            "redis_risks": ["eviction", "no_persistence"],
            "models": {},
        }
        assert 'vilix_redis_keys_at_risk{cause="eviction"} 1.0' in shown
        assert 'vilix_redis_keys_at_risk{cause="no_persistence"} 1.0' in shown
        log = (tmp_path / "log").read_text()
        assert log.count("redis may evict keys") == log.count("redis does not persist") == 1


async def test_a_full_redis_is_a_state_of_its_own_and_nothing_goes_unbilled(
    worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    server, metrics = Server(tmp_path / "redis", "--appendonly", "yes"), free_ports(1)[0]
    more = {**settings, "VILIX_METRICS_PORT": str(metrics)}
    with running([server]), running_gateway(server.url, worker.address, tmp_path / "log", **more) as (url, _):
        await ready(url)
        async with Redis.from_url(server.url, decode_responses=True) as redis, client_of(url) as client:
            key, secret = await keys.create(redis, name="shop")
            client.headers["Authorization"] = f"Bearer {secret}"
            assert (await client.post(URL, json=body(3))).status_code == 200
            await redis.config_set("maxmemory", "1mb")
            assert (await client.post(URL, json=body(3))).status_code == 200, "by the policy for a Redis that is away"
            health = await client.get("/healthz")
            assert (health.status_code, health.json()["redis"]) == (200, "full")
            async with client_of(f"http://127.0.0.1:{metrics}") as scraper:
                shown = (await scraper.get("/metrics")).text
            assert "vilix_redis_full 1.0" in shown
            assert "vilix_redis_full_refusals_total" in shown
            await redis.config_set("maxmemory", "0")

            async def is_well() -> bool:
                return bool((await client.get("/healthz")).json()["redis"] == "ok")

            async def all_is_billed() -> bool:
                return (await used(redis, key)).completion_tokens == 6

            await until(is_well, 30)
            await until(all_is_billed)
        log = (tmp_path / "log").read_text()
        assert log.count("redis is full") == 1
        assert "redis is away" not in log
