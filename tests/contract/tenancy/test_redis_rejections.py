"""A Redis that replies but rejects writes: the cause is reported, limits follow the policy, and no usage is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.gateway.redis.connection import connect
from services.gateway.redis.link import RedisAwayError, RedisLink, RedisRejectedError
from services.gateway.redis.rejections import WriteRejection, try_writing
from services.gateway.redis.script import Script
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack.ports import free_ports
from tests.contract.tenancy.conftest import REDIS_SECONDS, URL, body, client_of, log_lines, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.contract.tenancy.redis_servers import Server, cluster
from tests.support.fault_table import record
from tests.support.gateway import running_gateway, until_ready
from tests.support.messages import message_id_of
from tests.support.waits import until

WRITE = Script("return redis.call('SET', KEYS[1], ARGV[1])['ok']")


@pytest.fixture
async def link(server: Server) -> AsyncIterator[RedisLink]:
    link = RedisLink(connect(server.url, timeout=REDIS_SECONDS), timeout=REDIS_SECONDS)
    yield link
    await link.close()


async def write(link: RedisLink, value: str) -> str:
    response: str = await link.run(lambda redis: WRITE.run(redis, "vilix:{s00}:test", value))
    return response


async def rejected(link: RedisLink, cause: WriteRejection) -> None:
    """Assert that writes are rejected for `cause`, that the link reports it, and that reads work."""
    with pytest.raises(RedisRejectedError) as caught:
        await write(link, "rejected")
    assert caught.value.cause is link.rejection is cause
    assert not link.away


async def recovers(link: RedisLink) -> None:
    async def has() -> bool:
        return link.rejection is None

    await until(has)
    assert await write(link, "taken again") == "OK"
    assert not link.away


@pytest.mark.parametrize(
    ("policy", "responses"),
    [("local", {200: 4, 429: 6}), ("open", {200: 10}), ("closed", {503: 10})],
    ids=["local", "open", "closed"],
)
async def test_a_full_redis_is_reported_and_limits_follow_the_policy(  # noqa: PLR0917  # pytest passes by name
    server: Server,
    own_redis: Redis,
    worker: CountingWorker,
    settings: dict[str, str],
    policy: str,
    responses: dict[int, int],
    tmp_path: Path,
) -> None:
    key, secret = await keys.create(own_redis, name="known", limits=Limits(rpm=4))
    _, unseen = await keys.create(own_redis, name="not seen before")
    metrics, log = free_ports(1)[0], tmp_path / "log"
    more = {"VILIX_REDIS_AWAY_POLICY": policy, "VILIX_METRICS_PORT": str(metrics), "VILIX_REDIS_CHECK_SECONDS": "0.2"}
    with running_gateway(server.url, worker.address, log, **{**settings, **more}) as (gateway, _):
        await until_ready(gateway)
        async with client_of(gateway, secret) as client, client_of(f"http://127.0.0.1:{metrics}") as scraper:

            async def health_is(word: str) -> bool:
                return bool((await client.get("/healthz")).json()["redis"] == word)

            async def metric() -> str:
                return (await scraper.get("/metrics")).text

            async def ratio_is_exported() -> bool:
                return any(
                    float(line.split()[1]) > 1
                    for line in (await metric()).splitlines()
                    if line.startswith("vilix_redis_used_memory_ratio ")
                )

            assert await health_is("ok")
            await own_redis.config_set("maxmemory", "1mb")
            statuses = Counter([(await client.post(URL, json=body())).status_code for _ in range(10)])
            assert statuses == responses
            assert await health_is("full")
            health = await client.get("/healthz")
            assert health.status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/api/models", headers={"Authorization": f"Bearer {unseen}"})).status_code == 200
            assert (await client.get("/api/usage")).status_code == 200, "requests that need no write succeed"
            counted = await metric()
            assert 'vilix_redis_rejected_writes_total{cause="full"} 0.0' not in counted
            assert "vilix_redis_rejects_writes 1.0" in counted
            assert f'vilix_redis_away_decisions_total{{decision="limits_{policy}"}} 10.0' in counted
            await until(ratio_is_exported)
            await own_redis.config_set("maxmemory", "0")
            await until(lambda: health_is("ok"))
            assert "vilix_redis_rejects_writes 0.0" in await metric()

            async def all_is_billed() -> bool:
                total = await used(own_redis, key)
                return (total.requests, total.completion_tokens) == (statuses[200], 3 * statuses[200])

            await until(all_is_billed)
    assert [line["cause"] for line in log_lines(log, "redis rejects writes")] == ["full"]
    assert len(log_lines(log, "redis accepts writes again")) == 1
    assert not log_lines(log, "redis is away")
    assert not log_lines(log, "redis is back")
    record(
        f"Valkey full, policy {policy}",
        "/healthz, metrics and log report it as full, not as away; limits follow the policy; all usage is billed",
        f"{', '.join(f'{count} × {status}' for status, count in sorted(statuses.items()))}; "
        f"{statuses[200]} of {statuses[200]} billed",
        met=True,
    )


async def test_a_revocation_holds_while_redis_is_full(
    server: Server, own_redis: Redis, worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    _, secret = await keys.create(own_redis, name="revoked")
    with running_gateway(server.url, worker.address, tmp_path / "log", **settings) as (gateway, _):
        await until_ready(gateway)
        async with client_of(gateway, secret) as client:
            await own_redis.config_set("maxmemory", "1mb")
            assert (await client.post(URL, json=body())).status_code == 200
            await keys.revoke(own_redis, "revoked")
            assert (await client.post(URL, json=body())).status_code == 401


async def test_the_admin_api_reports_that_writes_are_rejected(
    server: Server, own_redis: Redis, worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    port, token = free_ports(1)[0], "a-token-for-tests-only"
    admin = {"VILIX_ADMIN_PORT": str(port), "VILIX_ADMIN_TOKEN": token}
    with running_gateway(server.url, worker.address, tmp_path / "log", **{**settings, **admin}) as (gateway, _):
        await until_ready(gateway)
        async with client_of(f"http://127.0.0.1:{port}", token) as client:
            await own_redis.config_set("maxmemory", "1mb")
            response = await client.post("/admin/v1/keys", json={"name": "new"})
            assert response.status_code == 503
            assert message_id_of(response) == "admin_redis_rejects"
            assert "(full)" in response.json()["error"]["message"]


async def test_a_server_at_its_memory_limit_does_not_alternate_between_full_and_recovered(
    link: RedisLink, own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        await own_redis.config_set("maxmemory", "1mb")
        with pytest.raises(RedisRejectedError):
            await write(link, str(number))
        await own_redis.config_set("maxmemory", "0")
        assert await write(link, str(number)) == "OK"
        assert link.rejection is WriteRejection.FULL
    await recovers(link)
    messages = [record.message for record in caplog.records if record.name.endswith("redis.link")]
    assert messages == ["redis rejects writes", "redis accepts writes again"]


async def test_a_demoted_server_is_read_only_until_it_is_promoted(
    server: Server, link: RedisLink, own_redis: Redis
) -> None:
    await write(link, "first")
    await own_redis.execute_command("REPLICAOF", "127.0.0.1", str(server.port))
    await rejected(link, WriteRejection.READ_ONLY)
    assert await link.run(lambda redis: redis.get("vilix:{s00}:test")) == "first"
    await own_redis.execute_command("REPLICAOF", "NO", "ONE")
    await recovers(link)


async def test_a_server_that_cannot_persist_is_reported(link: RedisLink, own_redis: Redis, tmp_path: Path) -> None:
    await write(link, "first")
    await own_redis.config_set("appendonly", "no")
    await own_redis.config_set("save", "3600 1")
    # A directory with the snapshot's name makes writing it fail.
    obstacle = tmp_path / "redis" / "dump.rdb"
    obstacle.mkdir()

    async def snapshot_ends(status: str) -> None:
        await own_redis.bgsave()

        async def has_ended() -> bool:
            info = await own_redis.info("persistence")
            return not info["rdb_bgsave_in_progress"] and bool(info["rdb_last_bgsave_status"] == status)

        await until(has_ended)

    await snapshot_ends("err")
    await rejected(link, WriteRejection.PERSISTENCE_FAILED)
    assert await link.run(lambda redis: redis.get("vilix:{s00}:test")) == "first"
    with pytest.raises(RedisRejectedError):
        await link.run(lambda redis: redis.ping())
    obstacle.rmdir()
    await snapshot_ends("ok")
    await recovers(link)


async def test_too_few_replicas_are_reported(link: RedisLink, own_redis: Redis) -> None:
    await own_redis.config_set("min-replicas-to-write", "1")
    await rejected(link, WriteRejection.NO_REPLICAS)
    await own_redis.config_set("min-replicas-to-write", "0")
    await recovers(link)


async def test_a_rejection_in_a_pipeline_is_recognised(link: RedisLink, own_redis: Redis) -> None:
    await own_redis.config_set("min-replicas-to-write", "1")

    async def pipeline(redis: Redis) -> None:
        async with redis.pipeline(transaction=False) as commands:
            commands.get("vilix:a")
            commands.set("vilix:a", "1")
            await commands.execute()

    with pytest.raises(RedisRejectedError):
        await link.run(pipeline)
    assert link.rejection is WriteRejection.NO_REPLICAS


async def test_scripts_that_are_sent_together_are_rejected_one_by_one(link: RedisLink, own_redis: Redis) -> None:
    script = Script("if ARGV[1] == 'read' then return 'read' end return redis.call('SET', KEYS[1], ARGV[1])['ok']")
    calls = [("vilix:{s00}:test", value) for value in ("read", "1", "read")]

    async def together() -> list[str | None]:
        return await link.run_many(lambda redis: script.run_many(redis, calls))

    assert await together() == ["read", "OK", "read"]
    await own_redis.config_set("maxmemory", "1mb")
    assert await together() == ["read", None, "read"]
    assert link.rejection is WriteRejection.FULL
    assert not link.away
    await own_redis.config_set("maxmemory", "0")
    await recovers(link)


async def test_a_full_server_that_dies_is_away(server: Server, link: RedisLink, own_redis: Redis) -> None:
    await own_redis.config_set("maxmemory", "1mb")
    await rejected(link, WriteRejection.FULL)
    server.kill()
    with pytest.raises(RedisAwayError):
        await write(link, "away")
    assert link.away
    server.start()

    async def is_back() -> bool:
        return not link.away

    await until(is_back)
    await recovers(link)


async def test_the_probe_of_writes_leaves_no_data(own_redis: Redis) -> None:
    assert await try_writing(own_redis) is None
    assert await own_redis.dbsize() == 0


async def test_one_full_node_of_a_cluster_is_reported(tmp_path: Path) -> None:
    with cluster(tmp_path) as url:
        link = RedisLink(connect(url, timeout=REDIS_SECONDS), timeout=REDIS_SECONDS)
        first = f"redis://{url.partition('://')[2].partition(',')[0]}"
        try:
            async with asyncio.timeout(20), Redis.from_url(first) as node:
                assert await try_writing(link.redis) is None
                await node.config_set("maxmemory", "1mb")
                assert await try_writing(link.redis) is WriteRejection.FULL

                async def write_everywhere(number: int) -> bool:
                    try:
                        await link.run(lambda redis: WRITE.run(redis, f"vilix:{{s{number:02}}}:test", "1"))
                    except RedisRejectedError:
                        return False
                    return True

                taken = [await write_everywhere(number) for number in range(64)]
                assert 0 < sum(taken) < 64, "the other nodes accept writes"
                assert link.rejection is WriteRejection.FULL
                await node.config_set("maxmemory", "0")
                await recovers(link)
        finally:
            await link.close()
