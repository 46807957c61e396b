"""Keys and limits on Sentinel, on a cluster, and over TLS with an ACL user."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from redis.asyncio import Redis

from services.gateway.redis.connection import connect, disconnect
from services.gateway.tenancy import key_activity, keys, receipts, usage
from services.gateway.tenancy.key import Change, Key
from services.gateway.tenancy.key_transfer import ImportResult, export_all, import_key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.revoked_keys import list_revoked
from tests.contract.tenancy.conftest import URL, body, client_of, holds_nothing
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.contract.tenancy.redis_servers import cluster, secured, sentinel_pair
from tests.support.gateway import running_gateway, until_ready
from tests.support.system_packages import require
from tests.support.waits import until


async def exactly_five_of_forty(gateway: str, worker: CountingWorker, redis: Redis, key: Key, secret: str) -> None:
    worker.going.clear()
    statuses: Counter[int] = Counter()
    async with client_of(gateway, secret) as client:

        async def ask() -> None:
            statuses[(await client.post(URL, json=body())).status_code] += 1
            if statuses[429] == 35:
                worker.going.set()

        await asyncio.gather(*(ask() for _ in range(40)))
    assert statuses == {200: 5, 429: 35}
    await until(lambda: holds_nothing(redis, key))


async def lives_and_ends(gateway: str, worker: CountingWorker, redis: Redis, name: str) -> None:
    """Assert that all operations on a key work."""
    key, secret = await keys.create(redis, name=name, limits=Limits(concurrency=5))
    await exactly_five_of_forty(gateway, worker, redis, key, secret)
    async with client_of(gateway, secret) as client:
        used = (await client.get("/api/usage")).json()
        assert used["today"]["completion_tokens"] == 15
        await keys.change(redis, name, Change(limits=Limits(rpm=1)))
        response = await client.post(URL, json=body())
        assert response.status_code == 200
        request_id = response.headers["x-request-id"]
        receipt = (await client.get(f"/api/requests/{request_id}")).json()
        assert receipt["usage"]["completion_tokens"] == 3
        found = await receipts.find_of_any(redis, request_id)
        assert found is not None
        assert found[0].id == key.id
        assert (await client.post(URL, json=body())).status_code == 429
        _, new = await keys.rotate(redis, name, grace_seconds=0)
        (activity,) = await key_activity.of_keys(redis, [key], today=datetime.now(UTC).date())
        assert activity.last_used is not None
        (exported,) = [each for each in (await export_all(redis)).keys if each.id == key.id]
        assert len(exported.secrets) == 2
        await keys.revoke(redis, name)
        assert await import_key(redis, exported) is ImportResult.PRESENT
        assert [each.id for each in await list_revoked(redis) if each.name == name] == [key.id]
        assert (await client.get("/api/models")).status_code == 401
        client.headers["Authorization"] = f"Bearer {new}"
        assert (await client.get("/api/models")).status_code == 401
    month = used["month"]["period"]
    (counted,) = await usage.of_periods(redis, key, [month])
    assert counted.counts.requests == 6


async def test_keys_and_limits_work_on_a_cluster_of_three(
    worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    with cluster(tmp_path) as url, running_gateway(url, worker.address, tmp_path / "log", **settings) as (gateway, _):
        await until_ready(gateway)
        redis = connect(url, timeout=5)
        try:
            for number in range(6):
                await lives_and_ends(gateway, worker, redis, f"key-{number}")
            kept = [await keys.create(redis, name=f"kept-{number}") for number in range(20)]
            assert {key.shard for key, _ in kept} > {kept[0][0].shard}, "keys are spread"
            assert sorted(key.name for key in await keys.list_all(redis)) == sorted(key.name for key, _ in kept)
        finally:
            await disconnect(redis)


async def test_keys_and_limits_survive_a_failover_by_sentinel(
    worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    with sentinel_pair(tmp_path) as (url, master, replica):
        redis, promoted = connect(url, timeout=5), connect(replica.url, timeout=5)
        try:
            key, secret = await keys.create(redis, name="web", limits=Limits(concurrency=5))
            with running_gateway(url, worker.address, tmp_path / "log", **settings) as (gateway, _):
                await until_ready(gateway)
                await exactly_five_of_forty(gateway, worker, redis, key, secret)
                master.kill()
                async with client_of(gateway, secret) as client:

                    async def redis_is_back() -> bool:
                        return bool((await client.get("/healthz")).json()["redis"] == "ok")

                    async def redis_is_away() -> bool:
                        return not await redis_is_back()

                    await until(redis_is_away)
                    assert (await client.post(URL, json=body())).status_code == 200, "known keys are served"
                    await until(redis_is_back)
                await exactly_five_of_forty(gateway, worker, promoted, key, secret)
        finally:
            await disconnect(redis)
            await disconnect(promoted)


async def test_a_revocation_reports_whether_a_replica_has_it(tmp_path: Path) -> None:
    with sentinel_pair(tmp_path) as (url, _, replica):
        redis = connect(url, timeout=5)
        try:
            await keys.create(redis, name="first")
            await keys.create(redis, name="second")
            _, replication = await keys.revoke(redis, "first")
            assert (replication.replicas, replication.acknowledged) == (1, 1)
            replica.signal(signal.SIGSTOP)
            try:
                _, replication = await keys.revoke(redis, "second")
                assert (replication.replicas, replication.acknowledged) == (1, 0)
            finally:
                replica.signal(signal.SIGCONT)
        finally:
            await disconnect(redis)


async def test_keys_and_limits_work_over_tls_with_an_acl_user(
    worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> None:
    program = require("redis-server", package="redis-server")
    with (
        secured(tmp_path / "redis", program) as url,
        running_gateway(url, worker.address, tmp_path / "log", **settings) as (gateway, _),
    ):
        await until_ready(gateway)
        redis = connect(url, timeout=5)
        try:
            await lives_and_ends(gateway, worker, redis, "secured")
        finally:
            await disconnect(redis)
