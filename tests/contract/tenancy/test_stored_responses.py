"""The store of responses, with a real Valkey: budgets, expiry, and what is left when its writers die at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from services.gateway.stored_responses import lost_response
from services.gateway.stored_responses.event_log import EventLog
from services.gateway.stored_responses.lost_response import body_of, event_frame
from services.gateway.stored_responses.revoked_keys import RevokedKeys
from services.gateway.stored_responses.store import (
    Budgets,
    ResponseLostError,
    ResponseStore,
    StoreAwayError,
    StoredResponse,
    StoreFullError,
)
from tests.support.valkey import running_valkey
from tests.support.waits import until

DEATHS = 100
BUDGETS = Budgets(seconds=3600, key_bytes=10**6, total_bytes=10**7)
ERROR = {"code": "server_error", "message": "gone"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("responses")) as url:
        yield url


@pytest.fixture
async def stores(url: str) -> AsyncIterator[tuple[ResponseStore, ResponseStore]]:
    """Yield the stores of two gateways."""
    stores = ResponseStore(url, lease_ms=150), ResponseStore(url, lease_ms=150)
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
    yield stores
    for store in stores:
        await store.close()


def document(response_id: str, status: str = "in_progress", **fields: Any) -> dict[str, Any]:
    return {"id": response_id, "status": status, "output": [], "background": False, **fields}


async def create(store: ResponseStore, response_id: str, *, owner: str = "key", budgets: Budgets = BUDGETS) -> None:
    await store.create(response_id, owner, "holder", budgets, document=document(response_id), items=[{"a": "b"}])


async def end_of(store: ResponseStore, response_id: str) -> StoredResponse:
    """Return a response once it has ended, as a gateway that follows it does."""
    while True:
        response = await store.read(response_id, "key", most=1000)
        assert response is not None
        if response.has_ended:
            return response
        if response.is_lost:
            await lost_response.end_lost(store, response, "key", BUDGETS, ERROR)
        await asyncio.sleep(0.01)


def text_event(number: int) -> bytes:
    return event_frame("response.output_text.delta", number, {"delta": f"{number}"})


async def test_the_responses_of_dead_gateways_end_once_after_what_was_stored(
    stores: tuple[ResponseStore, ResponseStore],
) -> None:
    first, second = stores
    chance = random.Random(1)

    async def die(number: int) -> None:
        response_id = f"resp_{number}"
        await create(first, response_id)
        log = EventLog(first, response_id, "holder", BUDGETS)
        for event in range(chance.randint(0, 200)):
            log.add(text_event(event))
            if event % 50 == 49:
                await asyncio.sleep(chance.random() / 10)
        # As if it were killed: nothing is written any more, also not what is pending.
        await log.stop()
        stored = await first.read(response_id, "key", most=1000)
        assert stored is not None
        ended = await asyncio.gather(*(end_of(chance.choice(stores), response_id) for _ in range(3)))
        assert [each.events for each in ended] == [ended[0].events] * 3
        bodies = [body_of(frame) for frame in ended[0].events]
        assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
        assert ended[0].events[:-2] == stored.events
        assert [body["type"] for body in bodies[-2:]] == ["error", "response.failed"]
        # A gateway that was only frozen writes nothing any more.
        with pytest.raises(ResponseLostError):
            await first.append(response_id, "holder", BUDGETS, [text_event(0)], length=stored.length)
        assert (await end_of(second, response_id)).events == ended[0].events

    for start in range(0, DEATHS, 10):
        await asyncio.gather(*(die(number) for number in range(start, start + 10)))


async def test_a_write_whose_reply_was_lost_is_not_repeated(stores: tuple[ResponseStore, ResponseStore]) -> None:
    store, _ = stores
    await create(store, "resp_1")
    for _ in range(2):
        await store.append("resp_1", "holder", BUDGETS, [text_event(0), text_event(1)], length=0)
    await store.append("resp_1", "holder", BUDGETS, [text_event(1), text_event(2)], length=1)
    response = await store.read("resp_1", "key", most=10)
    assert response is not None
    assert [body_of(frame)["sequence_number"] for frame in response.events] == [0, 1, 2]


async def test_a_reply_has_few_bytes_of_events(stores: tuple[ResponseStore, ResponseStore]) -> None:
    store, _ = stores
    budgets = Budgets(seconds=3600, key_bytes=10**7, total_bytes=10**7)
    await create(store, "resp_1", budgets=budgets)
    sizes = [2 * 10**6, 6 * 10**5, 6 * 10**5, 10, 10]
    await store.append("resp_1", "holder", budgets, [b"x" * size for size in sizes], length=0)
    replies = []
    while (first := sum(map(len, replies))) < len(sizes):
        response = await store.read("resp_1", "key", first=first, most=1000, with_document=False)
        assert response is not None
        assert response.document == {}
        replies.append([len(event) for event in response.events])
    assert replies == [sizes[:1], sizes[1:2], sizes[2:]]


async def test_events_are_written_several_at_a_time(
    stores: tuple[ResponseStore, ResponseStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = stores
    await create(store, "resp_1")
    batches: list[int] = []
    append = store.append

    async def noting(response_id: str, holder: str, budgets: Budgets, events: Any, *rest: Any, **named: Any) -> None:
        batches.append(len(events))
        await append(response_id, holder, budgets, events, *rest, **named)

    monkeypatch.setattr(store, "append", noting)
    log = EventLog(store, "resp_1", "holder", BUDGETS)
    for number in range(200):
        log.add(text_event(number))
    await log.end(document("resp_1", "completed"))
    assert sum(batches) == 200
    assert len(batches) <= 200 // 64 + 2


async def test_budgets_hold_for_each_key_and_for_all(stores: tuple[ResponseStore, ResponseStore]) -> None:
    first, second = stores
    small = Budgets(seconds=3600, key_bytes=5_000, total_bytes=8_000)
    stored = {"a": 0, "b": 0}
    for owner in ("a", "b"):
        with contextlib.suppress(StoreFullError):
            while True:
                store = (first, second)[stored[owner] % 2]
                await create(store, f"resp_{owner}{stored[owner]}", owner=owner, budgets=small)
                stored[owner] += 1
    assert 0 < await first.used_bytes() <= 8_000
    assert 0 < stored["b"] < stored["a"]
    with pytest.raises(StoreFullError):
        await first.append("resp_a0", "holder", small, [b"x" * 5_000], length=0)
    # What is deleted gives its space back, and a revoked key's is deleted at once.
    assert await second.delete("resp_a0", "a")
    assert not await second.delete("resp_a1", "b")
    await create(first, "resp_new", owner="a", budgets=small)
    assert await first.purge("a") == stored["a"]
    assert await first.owners() == ["b"]
    assert await first.purge("b") == stored["b"]
    assert await first.used_bytes() == 0


async def test_text_that_compresses_well_counts_as_what_it_becomes(
    stores: tuple[ResponseStore, ResponseStore],
) -> None:
    store, _ = stores
    items = [{"text": "a" * 600_000}]
    await store.create("resp_1", "key", "holder", BUDGETS, document=document("resp_1"), items=items)
    assert await store.used_bytes() >= 600_000
    with pytest.raises(StoreFullError):
        await store.create("resp_2", "key", "holder", BUDGETS, document=document("resp_2"), items=items)
    # Also what a response has become.
    with pytest.raises(StoreFullError):
        await store.append("resp_1", "holder", BUDGETS, [], document("resp_1", text="a" * 600_000), length=0)
    response = await store.read("resp_1", "key", with_items=True)
    assert response is not None
    assert response.items == items
    await store.delete("resp_1", "key")
    assert await store.used_bytes() == 0


async def test_an_end_without_space_has_only_status_and_error(stores: tuple[ResponseStore, ResponseStore]) -> None:
    store, _ = stores
    item = {"id": "msg_1", "text": "a" * 60_000}
    done = event_frame("response.output_item.done", 0, {"item": item})
    await create(store, "resp_1")
    await store.append("resp_1", "holder", BUDGETS, [done], length=0)
    small = Budgets(seconds=3600, key_bytes=await store.used_bytes() + 1000, total_bytes=10**7)
    for budgets, output in ((small, []), (BUDGETS, [item])):
        await create(store, "resp_2")
        await store.append("resp_2", "holder", BUDGETS, [done], length=0)
        response = await store.read("resp_2", "key")
        assert response is not None
        before = await store.used_bytes()
        assert await lost_response.cancel(store, response, "key", budgets)
        ended = await end_of(store, "resp_2")
        assert (ended.status, ended.document["output"]) == ("cancelled", output)
        assert body_of(ended.events[-1])["response"]["status"] == "cancelled"
        assert (await store.used_bytes() - before < 1000) == (not output)
        await store.delete("resp_2", "key")


async def test_a_store_that_has_lost_a_size_deletes_the_responses_of_a_key(
    url: str, stores: tuple[ResponseStore, ResponseStore]
) -> None:
    store, _ = stores
    await create(store, "resp_1")
    async with Redis.from_url(url) as redis:
        await redis.delete("vilix:{responses}:sizes")
    assert await asyncio.wait_for(store.purge("key"), 20) == 1
    assert await store.read("resp_1", "key") is None


async def test_operators_learn_how_much_is_stored(stores: tuple[ResponseStore, ResponseStore]) -> None:
    store, _ = stores
    for number in range(2):
        await create(store, f"resp_{number}", owner=f"key_{number}")

    async def dead_keys(owners: Sequence[str]) -> list[str]:
        return [owner for owner in owners if owner == "key_0"]

    await RevokedKeys(store, dead_keys, seconds=60).sweep()
    reported = REGISTRY.get_sample_value("vilix_stored_response_bytes")
    assert reported == await store.used_bytes()
    assert reported > 0


async def test_an_expired_response_is_gone_with_its_bytes(
    stores: tuple[ResponseStore, ResponseStore], url: str
) -> None:
    store, _ = stores
    await create(store, "resp_1", budgets=Budgets(seconds=1, key_bytes=10**6, total_bytes=10**6))
    await store.append("resp_1", "holder", BUDGETS, [text_event(0)], length=0)

    async def is_gone() -> bool:
        return await store.read("resp_1", "key") is None and not await store.used_bytes()

    await until(is_gone, what="the response has expired")
    async with Redis.from_url(url) as redis:
        assert await redis.keys("*") == []


async def test_a_cancelled_response_rejects_its_writer(stores: tuple[ResponseStore, ResponseStore]) -> None:
    first, second = stores
    await create(first, "resp_1")
    lost = asyncio.Event()
    log = EventLog(first, "resp_1", "holder", BUDGETS)
    log.on_lost = lambda _: lost.set()
    log.add(text_event(0))
    response = None
    while response is None or not response.has_ended:
        response = await second.read("resp_1", "key")
        assert response is not None
        if not response.has_ended:
            await lost_response.cancel(second, response, "key", BUDGETS)
    assert response.status == "cancelled"
    log.add(text_event(1))
    await asyncio.wait_for(lost.wait(), 20)
    await log.end(document("resp_1", "completed"))
    final = await end_of(second, "resp_1")
    assert final.status == "cancelled"
    assert [body_of(frame)["type"] for frame in final.events].count("response.incomplete") == 1


async def test_a_store_that_is_away_is_reported(url: str) -> None:
    store = ResponseStore("redis://127.0.0.1:1/0", lease_ms=1000)
    for _ in range(2):
        with pytest.raises(StoreAwayError):
            await store.read("resp_1", "key")
    assert REGISTRY.get_sample_value("vilix_redis_up", {"store": "responses"}) == 0
    await store.close()
    store = ResponseStore(url, lease_ms=1000)
    assert await store.read("resp_of_nobody", "key") is None
    assert REGISTRY.get_sample_value("vilix_redis_up", {"store": "responses"}) == 1
    await store.close()
