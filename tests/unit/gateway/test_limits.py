from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from services.gateway import keys
from services.gateway.errors import ApiError
from services.gateway.limits import Limits, duration


async def admitted(limits: Limits, key: keys.Key) -> bool:
    try:
        await limits.admit(key)
    except ApiError as error:
        assert error.status == 429
        return False
    return True


@pytest.mark.parametrize("round_", range(5))
async def test_of_a_hundred_requests_at_once_exactly_the_limit_pass(redis: Redis, round_: int) -> None:
    key, _ = await keys.create(redis, name="shop", rpm=5)
    limits = Limits(redis)
    results = await asyncio.gather(*(admitted(limits, key) for _ in range(100)))
    assert sum(results) == 5


async def test_a_refusal_says_when_to_come_back_and_is_not_counted(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop", rpm=600)
    limits = Limits(redis)
    while await admitted(limits, key):
        pass
    with pytest.raises(ApiError) as refused:
        await limits.admit(key)
    headers = refused.value.headers
    assert 1 <= int(headers["retry-after-ms"]) <= 100
    assert headers["Retry-After"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    await asyncio.sleep(int(headers["retry-after-ms"]) / 1000)
    assert await admitted(limits, key)


async def test_headers_count_down(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop", rpm=3)
    limits = Limits(redis)
    headers = [(await limits.admit(key)).headers for _ in range(3)]
    assert [each["x-ratelimit-remaining-requests"] for each in headers] == ["2", "1", "0"]
    assert {each["x-ratelimit-limit-requests"] for each in headers} == {"3"}


async def test_a_key_without_a_limit_is_never_refused(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop")
    assert all([await admitted(Limits(redis), key) for _ in range(50)])
    assert await redis.keys("*limit*") == []


async def test_the_script_survives_a_flush(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop", rpm=3)
    limits = Limits(redis)
    assert await admitted(limits, key)
    await redis.script_flush()
    assert await admitted(limits, key)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.012, "12ms"), (1, "1s"), (5.25, "5.25s"), (90, "1m30s"), (60, "1m0s"), (0, "0ms")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
