"""The eviction policy and persistence of a real Valkey, as /healthz, metrics and the log report them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.gateway.redis.connection import connect, disconnect
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.redis.watch import Persistence, RedisWatch, ServerState, read_state
from services.stack.ports import free_ports
from tests.contract.tenancy.conftest import REDIS_SECONDS, client_of, log_lines
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.contract.tenancy.redis_servers import Server, cluster, running, sentinel_pair
from tests.support.gateway import running_gateway, until_ready
from tests.support.waits import until


async def state_of(url: str) -> ServerState:
    redis = connect(url, timeout=REDIS_SECONDS)
    try:
        return await read_state(redis)
    finally:
        await disconnect(redis)


async def test_changes_at_run_time_are_reported_by_health_metrics_and_one_log_line(
    server: Server, own_redis: Redis, worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    metrics, log = free_ports(1)[0], tmp_path / "log"
    more = {"VILIX_METRICS_PORT": str(metrics), "VILIX_REDIS_CHECK_SECONDS": "0.2"}
    with running_gateway(server.url, worker.address, log, **{**settings, **more}) as (gateway, _):
        await until_ready(gateway)
        async with client_of(gateway) as client, client_of(f"http://127.0.0.1:{metrics}") as scraper:

            async def is_reported(eviction: str, persistence: str, evicts: int, persists: int) -> None:
                async def reported() -> bool:
                    response = await client.get("/healthz")
                    assert response.status_code == 200
                    health, shown = response.json(), (await scraper.get("/metrics")).text
                    return (
                        health["redis"] == "ok"
                        and (health["redis_eviction"], health["redis_persistence"]) == (eviction, persistence)
                        and f"vilix_redis_evicts_keys {evicts}.0" in shown
                        and f"vilix_redis_persists {persists}.0" in shown
                    )

                await until(reported)

            await is_reported("noeviction", "aof", 0, 1)
            await own_redis.config_set("maxmemory-policy", "allkeys-lru")
            await is_reported("allkeys-lru", "aof", 1, 1)
            await own_redis.config_set("appendonly", "no")
            await is_reported("allkeys-lru", "off", 1, 0)
            await own_redis.config_set("save", "3600 1")
            await is_reported("allkeys-lru", "snapshots", 1, 1)
            await own_redis.config_set("maxmemory-policy", "noeviction")
            await is_reported("noeviction", "snapshots", 0, 1)
    evicts = log_lines(log, "redis may evict keys and limits; set its maxmemory-policy to noeviction")
    assert [(line["policy"], line["level"]) for line in evicts] == [("allkeys-lru", "warning")]
    off = log_lines(log, "redis does not persist: its restart loses keys and limits; set appendonly to yes")
    assert [line["level"] for line in off] == ["warning"]


async def test_after_an_outage_the_state_is_read_again_at_once(server: Server, tmp_path: Path) -> None:
    link = RedisLink(connect(server.url, timeout=0.3), timeout=0.3)
    watch = RedisWatch(link, seconds=3600)
    watch.open()
    try:

        async def persists_by(how: Persistence) -> bool:
            return watch.state.persistence is how

        await until(lambda: persists_by(Persistence.AOF))
        server.kill()
        with pytest.raises(RedisAwayError):
            await link.run(lambda redis: redis.ping())
        other = Server(tmp_path / "other", port=server.port)
        with running([other]):
            await until(lambda: persists_by(Persistence.OFF))
    finally:
        await watch.close()
        await link.close()


@pytest.mark.parametrize(
    ("forbidden", "state"),
    [
        (["-config"], ServerState("volatile-lru", Persistence.AOF)),
        (["-config", "-info"], ServerState("unknown", Persistence.UNKNOWN)),
        (["-info"], ServerState("volatile-lru", Persistence.AOF)),
    ],
    ids=["CONFIG", "both", "INFO"],
)
async def test_a_setting_that_an_acl_hides_is_read_from_info_or_unknown(
    server: Server, own_redis: Redis, forbidden: list[str], state: ServerState
) -> None:
    await own_redis.config_set("maxmemory-policy", "volatile-lru")
    await own_redis.execute_command("ACL", "SETUSER", "vilix", "on", ">secret", "~vilix:*", "+@all", *forbidden)
    found = await state_of(f"redis://vilix:secret@127.0.0.1:{server.port}/0")
    assert (found.eviction, found.persistence) == (state.eviction, state.persistence)


async def test_without_config_snapshots_cannot_be_distinguished_from_no_persistence(
    server: Server, own_redis: Redis
) -> None:
    await own_redis.config_set("appendonly", "no")
    await own_redis.execute_command("ACL", "SETUSER", "vilix", "on", ">secret", "~vilix:*", "+@all", "-config")
    assert (await state_of(f"redis://vilix:secret@127.0.0.1:{server.port}/0")).persistence is Persistence.UNKNOWN


async def test_a_failed_snapshot_is_reported(own_redis: Redis, server: Server, tmp_path: Path) -> None:
    await own_redis.config_set("appendonly", "no")
    await own_redis.config_set("save", "3600 1")
    (tmp_path / "redis" / "dump.rdb").mkdir()
    await own_redis.bgsave()

    async def fails() -> bool:
        return (await state_of(server.url)).persistence is Persistence.FAILING

    await until(fails)


async def test_memory_is_reported_as_a_fraction_of_the_maximum(own_redis: Redis) -> None:
    assert math.isnan((await read_state(own_redis)).memory_ratio)
    await own_redis.config_set("maxmemory", "1gb")
    assert 0 < (await read_state(own_redis)).memory_ratio < 0.1


async def test_the_primary_of_a_sentinel_pair_is_read(tmp_path: Path) -> None:
    with sentinel_pair(tmp_path) as (url, master, _):
        async with Redis.from_url(master.url) as primary:
            await primary.config_set("maxmemory-policy", "allkeys-lfu")
        found = await state_of(url)
        assert (found.eviction, found.persistence) == ("allkeys-lfu", Persistence.OFF)


async def test_the_worst_node_of_a_cluster_counts(tmp_path: Path) -> None:
    with cluster(tmp_path) as url:
        assert (await state_of(url)).eviction == "noeviction"
        nodes = url.partition("://")[2].split(",")
        async with Redis.from_url(f"redis://{nodes[-1]}") as node:
            await node.config_set("maxmemory-policy", "allkeys-random")
        async with Redis.from_url(f"redis://{nodes[0]}") as node:
            await node.config_set("appendonly", "yes")
            await node.config_set("maxmemory", "1gb")
        found = await state_of(url)
        assert (found.eviction, found.persistence) == ("allkeys-random", Persistence.OFF)
        assert 0 < found.memory_ratio < 0.1
