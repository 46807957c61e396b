"""The budget of request bodies: which fit, which wait, and which are rejected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway.edge import body_budget
from services.gateway.edge.body_budget import SMALL_BYTES, BodyBudget, BodyShare, budget_sizes
from services.gateway.errors import ApiError
from services.runtime.messages.message import Message

MEBIBYTE = 2**20
TOTAL, PER_KEY = 8 * MEBIBYTE, 4 * MEBIBYTE
WAIT_SECONDS = 0.3
LIMIT = 10.0


@pytest.fixture
async def budget() -> AsyncIterator[BodyBudget]:
    made = BodyBudget(total=TOTAL, per_key=PER_KEY, wait_seconds=WAIT_SECONDS)
    yield made
    assert made.used == 0, "everything was released"


async def received(budget: BodyBudget, key: str, *parts: int) -> BodyShare:
    """Receive a body that had announced its length, and return its share."""
    share = budget.open(key)
    try:
        async with share.receiving(sum(parts)):
            for part in parts:
                await share.add(part)
    except BaseException:
        share.release()
        raise
    return share


async def test_a_body_counts_until_it_is_released(budget: BodyBudget) -> None:
    share = await received(budget, "a", MEBIBYTE, 10)
    assert budget.used == MEBIBYTE + 10
    share.release()
    share.release()
    assert budget.used == 0


async def test_an_unfinished_body_counts_as_a_small_one(budget: BodyBudget) -> None:
    share = budget.open("a")
    async with share.receiving():
        assert budget.used == SMALL_BYTES
        await share.add(10)
    assert budget.used == 10
    share.release()


async def test_a_body_without_a_length_counts_by_the_bytes_received(budget: BodyBudget) -> None:
    share = budget.open("a")

    async def receive() -> None:
        async with share.receiving():
            for _ in range(8):
                await share.add(MEBIBYTE)

    with pytest.raises(ApiError) as caught:
        await receive()
    assert caught.value.message == Message("bodies_of_key_exceeded", limit=4194304)
    assert budget.used == PER_KEY
    share.release()


async def test_a_key_cannot_exceed_its_budget(budget: BodyBudget) -> None:
    shares = [await received(budget, "a", 2 * MEBIBYTE) for _ in range(2)]
    with pytest.raises(ApiError) as caught:
        await received(budget, "a", MEBIBYTE)
    assert caught.value.message == Message("bodies_of_key_exceeded", limit=4194304)
    assert caught.value.status == 503
    assert caught.value.headers["Connection"] == "close"
    assert caught.value.retry_after == 1
    shares.append(await received(budget, "b", 2 * MEBIBYTE))
    for share in shares:
        share.release()


async def test_all_keys_together_cannot_exceed_the_budget(budget: BodyBudget) -> None:
    shares = [await received(budget, key, 3 * MEBIBYTE) for key in "ab"]
    with pytest.raises(ApiError) as caught:
        await received(budget, "c", 3 * MEBIBYTE)
    assert caught.value.message == Message("bodies_exceeded")
    small = await received(budget, "c", 1000)
    for share in (*shares, small):
        share.release()


async def test_a_waiting_body_gets_capacity_that_is_released(budget: BodyBudget) -> None:
    first = await received(budget, "a", 4 * MEBIBYTE)
    waiting = asyncio.create_task(received(budget, "a", 2 * MEBIBYTE))
    await asyncio.sleep(WAIT_SECONDS / 4)
    assert not waiting.done()
    first.release()
    async with asyncio.timeout(LIMIT):
        (await waiting).release()


async def test_the_key_that_uses_least_comes_first(budget: BodyBudget) -> None:
    holding = [await received(budget, "greedy", 2 * MEBIBYTE), await received(budget, "other", 4 * MEBIBYTE)]
    got: list[str] = []

    async def wait(key: str) -> None:
        share = await received(budget, key, 2 * MEBIBYTE)
        got.append(key)
        share.release()

    tasks = [asyncio.create_task(wait(key)) for key in ("greedy", "greedy", "modest")]
    await asyncio.sleep(WAIT_SECONDS / 10)
    assert not got
    holding[1].release()
    await asyncio.gather(*tasks)
    assert got[0] == "modest"
    holding[0].release()


async def test_one_key_cannot_keep_others_from_waiting(budget: BodyBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_budget, "MOST_WAITING_OF_KEY", 1)
    first = await received(budget, "a", 4 * MEBIBYTE)
    second = await received(budget, "b", 3 * MEBIBYTE)
    waiting = [asyncio.create_task(received(budget, key, MEBIBYTE)) for key in "aac"]
    done, pending = await asyncio.wait(waiting, timeout=WAIT_SECONDS / 3)
    assert [task.exception() is not None for task in done] == [True]
    first.release()
    for share in await asyncio.gather(*pending):
        share.release()
    second.release()


async def test_a_body_that_is_cancelled_while_waiting_releases_everything(budget: BodyBudget) -> None:
    first = await received(budget, "a", 4 * MEBIBYTE)
    waiting = [asyncio.create_task(received(budget, "a", 2 * MEBIBYTE)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    first.release()
    waiting[1].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for share in found:
        if isinstance(share, BodyShare):
            share.release()


async def test_a_slow_body_is_rejected_when_another_waits(budget: BodyBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_budget, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(body_budget, "LOOK_SECONDS", 0.01)

    async def is_slow() -> None:
        share = budget.open("slow")
        try:
            async with share.receiving():
                await share.add(3 * MEBIBYTE)
                await asyncio.sleep(LIMIT)
        finally:
            share.release()

    slow = asyncio.create_task(is_slow())
    await asyncio.sleep(0)
    assert budget.used == 3 * MEBIBYTE
    whole = await received(budget, "whole", 3 * MEBIBYTE)
    async with asyncio.timeout(LIMIT):
        share = await received(budget, "fast", 3 * MEBIBYTE)
        with pytest.raises(ApiError) as caught:
            await slow
        assert caught.value.message == Message("body_too_slow")
    share.release()
    whole.release()


async def test_the_number_of_waiting_bodies_is_limited(budget: BodyBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_budget, "MOST_WAITING", 2)
    first = await received(budget, "a", 4 * MEBIBYTE)
    waiting = [asyncio.create_task(received(budget, "a", 2 * MEBIBYTE)) for _ in range(5)]
    done, pending = await asyncio.wait(waiting, timeout=WAIT_SECONDS / 2)
    assert len(done) == 3
    first.release()
    for result in await asyncio.gather(*pending):
        result.release()
    for task in done:
        with pytest.raises(ApiError):
            task.result()


def test_the_default_depends_on_the_containers_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(body_budget, "_CGROUP_LIMITS", (tmp_path / "missing", limit))
    assert budget_sizes(0, 0, max_body_bytes=MEBIBYTE) == (256 * MEBIBYTE, 128 * MEBIBYTE)
    limit.write_text("max\n")
    assert budget_sizes(0, 0, max_body_bytes=MEBIBYTE) == (256 * MEBIBYTE, 128 * MEBIBYTE)
    limit.write_text(f"{512 * MEBIBYTE}\n")
    assert budget_sizes(0, 0, max_body_bytes=MEBIBYTE) == (128 * MEBIBYTE, 64 * MEBIBYTE)
    total, per_key = budget_sizes(0, 0, max_body_bytes=200 * MEBIBYTE)
    assert total - total // 8 >= per_key == 200 * MEBIBYTE
    assert budget_sizes(100 * MEBIBYTE, 30 * MEBIBYTE, max_body_bytes=MEBIBYTE) == (100 * MEBIBYTE, 30 * MEBIBYTE)


@pytest.mark.parametrize(("total", "per_key"), [(20, 0), (0, 19)])
def test_a_budget_that_is_too_small_for_one_body_is_an_error(total: int, per_key: int) -> None:
    with pytest.raises(ValueError, match="have no capacity for one body"):
        budget_sizes(total * MEBIBYTE, per_key * MEBIBYTE, max_body_bytes=20 * MEBIBYTE)
