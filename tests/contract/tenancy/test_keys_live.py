"""Changes of keys apply to all gateways at once, and reservations of killed gateways are released."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.gateway.record import Outcome
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change, Key
from services.gateway.tenancy.limits import Limits
from tests.contract.tenancy.conftest import (
    RENEW_SECONDS,
    RESERVATION_SECONDS,
    URL,
    body,
    client_of,
    holds_nothing,
    records,
    state_of,
    used,
)
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.fault_table import record
from tests.support.gateway import running_gateway, until_ready
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]


async def test_a_revoked_key_is_rejected_by_every_gateway_within_a_second(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key()
    accepted: list[float] = []
    rejected: set[str] = set()

    async def ask_on(gateway: str) -> None:
        async with client_of(gateway, secret) as client:
            while gateway not in rejected:
                began = time.monotonic()
                status = (await client.post(URL, json=body(1))).status_code
                if status == 401:
                    rejected.add(gateway)
                else:
                    assert status == 200
                    accepted.append(began)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for gateway in gateways:
            group.create_task(ask_on(gateway))
        await until(lambda: len(accepted) >= 50, what="requests are accepted")
        await keys.revoke(redis, key.id)
        revoked = time.monotonic()
    seconds = max(accepted) - revoked
    assert seconds < 1
    record(
        f"Revocation is immediate, with {len(gateways)} gateways under load",
        "last accepted request less than 1 s after revoking",
        f"{seconds * 1000:+.0f} ms",
        met=True,
    )


async def test_a_rotated_key_has_two_secrets_for_the_grace_period_only(
    gateways: list[str], new_key: NewKey, redis: Redis
) -> None:
    key, old = await new_key(limits={"concurrency": 7})
    _, new = await keys.rotate(redis, key.id, grace_seconds=2)

    async def status(secret: str) -> int:
        async with client_of(gateways[0], secret) as client:
            return (await client.get("/api/usage")).status_code

    assert (await status(old), await status(new)) == (200, 200)

    async def old_is_rejected() -> bool:
        return await status(old) == 401

    await until(old_is_rejected)
    assert await status(new) == 200


async def test_an_expired_key_is_rejected(gateways: list[str], new_key: NewKey, redis: Redis) -> None:
    key, secret = await new_key(expires=int(time.time()) + 3600)
    async with client_of(gateways[0], secret) as client:
        assert (await client.get("/api/models")).status_code == 200
        await keys.change(redis, key.id, Change(expires=int(time.time()) - 1))
        assert (await client.get("/api/models")).status_code == 401


async def test_changed_limits_and_tiers_apply_from_the_next_request(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, tiers_file: Path
) -> None:
    key, secret = await new_key(tier="free")
    async with client_of(gateways[1], secret) as client:
        assert (await client.post(URL, json=body())).headers["x-ratelimit-limit-requests"] == "1000"
        await keys.change(redis, key.id, Change(limits=Limits(rpm=7)))
        assert (await client.post(URL, json=body())).headers["x-ratelimit-limit-requests"] == "7"
        await keys.change(redis, key.id, Change(limits=Limits(rpm=None)))

        async def tier_has(limit: str) -> bool:
            return (await client.post(URL, json=body())).headers.get("x-ratelimit-limit-requests") == limit

        with changed(tiers_file, "rpm: 1000", "rpm: 900"):
            await until(lambda: tier_has("900"))
        await until(lambda: tier_has("1000"))
        await keys.change(redis, key.id, Change(tier="unknown"))
        rejected = await client.post(URL, json=body())
        assert rejected.status_code == 503
        assert message_id_of(rejected) == "tier_unknown"


async def test_a_key_sees_and_uses_only_the_models_on_its_list(gateways: list[str], new_key: NewKey) -> None:
    _, secret = await new_key(models=["small"])
    async with client_of(gateways[0], secret) as client:
        listed = (await client.get("/api/models")).json()["data"]
        assert [model["id"] for model in listed] == ["small"]
        rejected = await client.post(URL, json=body(model="large"))
        assert rejected.status_code == 403
        assert rejected.json()["error"] == {
            "message": "This API key may not use the model 'large'. It may use: small.",
            "type": "permission_error",
            "param": "model",
            "code": "model_not_allowed",
        }


async def test_usage_reports_what_a_key_used_and_what_remains(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    limits = {"rpm": 10, "tpm": 1000, "concurrency": 3, "daily_tokens": 5000}
    _, secret = await new_key(limits=limits, model_limits={"large": {"rpm": 2}})
    async with client_of(gateways[2], secret) as client:
        await client.post(URL, json=body(4))
        await client.post(URL, json=body(6, model="large"))
        response = (await client.get("/api/usage")).json()
        assert (await client.get("/v1/usage")).status_code == 200
    assert response["today"] | {"period": "", "ends": ""} == {
        "period": "",
        "ends": "",
        "requests": 2,
        "prompt_tokens": 10,
        "completion_tokens": 10,
        "cached_tokens": 2,
        "reasoning_tokens": 0,
        "models": {
            "large": {
                "requests": 1,
                "prompt_tokens": 5,
                "completion_tokens": 6,
                "cached_tokens": 1,
                "reasoning_tokens": 0,
            },
            "small": {
                "requests": 1,
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "cached_tokens": 1,
                "reasoning_tokens": 0,
            },
        },
    }
    assert response["month"]["prompt_tokens"] == 10
    assert response["limits"] == {**limits, "monthly_tokens": None}
    assert response["remaining"] | {"rpm": 8, "tpm": 980} == {
        "rpm": 8,
        "tpm": 980,
        "concurrency": 3,
        "daily_tokens": 4980,
        "monthly_tokens": None,
    }
    assert response["remaining"]["rpm"] in (8, 9)
    assert response["model_limits"]["large"]["rpm"] == 2


@pytest.fixture
async def doomed(
    redis_url: str, worker: CountingWorker, settings: dict[str, str], tmp_path: Path
) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a fourth gateway, which the test kills."""
    with running_gateway(redis_url, worker.address, tmp_path / "log", **settings) as (url, process):
        await until_ready(url)
        yield url, process


async def test_reservations_of_a_killed_gateway_are_released_and_its_tokens_are_billed(
    doomed: tuple[str, subprocess.Popen[bytes]],
    worker: CountingWorker,
    gateways: list[str],
    new_key: NewKey,
    redis: Redis,
) -> None:
    url, process = doomed
    worker.pace = 0.05
    key, secret = await new_key(limits={"concurrency": 5})

    async def billed() -> bool:
        return (await used(redis, key)).completion_tokens >= 50

    async with client_of(url, secret) as client, client_of(gateways[0], secret) as other:
        for _ in range(5):
            request = client.build_request("POST", URL, json=body(1000, stream=True))
            assert (await client.send(request, stream=True)).status_code == 200
        await until(billed)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        killed = time.monotonic()
        produced = {name: entry.completion for name, entry in worker.books.items()}
        assert (await other.post(URL, json=body(1))).status_code == 429

        async def a_slot_is_free() -> bool:
            return (await other.post(URL, json=body(1))).status_code == 200

        await until(a_slot_is_free)
        freed = time.monotonic() - killed
        assert freed < RESERVATION_SECONDS + 2
    await until(lambda: holds_nothing(redis, key))
    lost = [entry for entry in await records(redis, key) if entry["outcome"] == Outcome.LOST]
    assert len(lost) == 5
    for entry in lost:
        missing = produced[entry["request_id"]] - int(entry["completion_tokens"])
        assert 0 <= missing <= (RENEW_SECONDS + 1) / worker.pace, "only tokens since the last renewal are missing"
    record(
        "A gateway killed with 5 requests of a key with a concurrency limit of 5",
        "their slots are free once the reservations expire; tokens are billed except for the last renewal interval",
        f"a slot after {freed:.1f} s (reservation {RESERVATION_SECONDS:g} s); 5 of 5 billed",
        met=True,
    )


async def test_reservations_of_a_killed_gateway_are_released_without_another_request(
    doomed: tuple[str, subprocess.Popen[bytes]],
    worker: CountingWorker,
    gateways: list[str],
    new_key: NewKey,
    redis: Redis,
) -> None:
    url, process = doomed
    worker.going.clear()
    key, secret = await new_key()
    async with client_of(url, secret) as client:
        request = client.build_request("POST", URL, json=body(1000, stream=True))
        assert (await client.send(request, stream=True)).status_code == 200
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    async def recorded() -> bool:
        return len(await records(redis, key)) == 1

    await until(recorded, RESERVATION_SECONDS + 15)


async def test_a_request_of_a_tier_with_a_queue_waits_for_a_slot(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    worker.going.clear()
    key, secret = await new_key(tier="patient")
    async with client_of(gateways[0], secret) as client, client_of(gateways[1], secret) as another:
        first = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: holds(redis, key, 1))
        streamed = asyncio.create_task(another.post(URL, json=body(2, stream=True, nonsense=1, reasoning_effort="low")))
        await until(lambda: waits(redis, key, 1))
        whole = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: waits(redis, key, 2))
        rejected = await another.post(URL, json=body(2))
        assert rejected.status_code == 429, "the queue is full"
        worker.going.set()
        text = (await streamed).text
        assert text.startswith(": queued 1\n\n")
        assert text.endswith("data: [DONE]\n\n")
        # The headers were sent with the first position in the queue, before a worker had the request.
        assert streamed.result().headers["x-ignored-params"] == "nonsense"
        assert ": x-ignored-params nonsense,reasoning_effort\n\n" in text
        assert [(await each).status_code for each in (first, whole)] == [200, 200]
    assert worker.most_running == 1
    assert await holds_nothing(redis, key)


async def test_a_request_that_waited_too_long_gets_an_error_event(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    worker.going.clear()
    key, secret = await new_key(tier="hasty")
    async with client_of(gateways[0], secret) as client:
        first = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: holds(redis, key, 1))
        streamed = await client.post(URL, json=body(2, stream=True))
        assert streamed.status_code == 200
        assert '"code":"rate_limit_exceeded"' in streamed.text
        assert "[DONE]" not in streamed.text
        whole = await client.post(URL, json=body(2))
        assert whole.status_code == 429
        worker.going.set()
        assert (await first).status_code == 200


async def test_a_client_that_disconnects_while_queued_leaves_the_queue(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    worker.going.clear()
    key, secret = await new_key(tier="patient")
    async with client_of(gateways[0], secret) as client:
        first = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: holds(redis, key, 1))
        async with client.stream("POST", URL, json=body(2, stream=True)) as waiting:
            assert waiting.status_code == 200
        last = asyncio.create_task(client.post(URL, json=body(2)))
        worker.going.set()
        assert [(await each).status_code for each in (first, last)] == [200, 200]
    assert await holds_nothing(redis, key)
    assert (await used(redis, key)).requests == 2


@contextmanager
def changed(file: Path, old: str, new: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(before.replace(old, new))
    try:
        yield
    finally:
        file.write_text(before)


async def holds(redis: Redis, key: Key, slots: int) -> bool:
    return (await state_of(redis, key))["key"].slots == slots


async def waits(redis: Redis, key: Key, requests: int) -> bool:
    return bool(await redis.zcard(f"vilix:{{{key.shard}}}:limits:{key.id}:waiting") == requests)
