"""Receipts in a real Valkey: for a day, a limited number of each key, and those of requests whose gateway has died."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from services.gateway.record import Outcome, RequestRecord
from services.gateway.redis.link import RedisLink
from services.gateway.redis.rejections import WriteRejection
from services.gateway.settings import RedisAwayPolicy
from services.gateway.tenancy import keys, limits_script, receipts
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Produced, Progress, ReservationId, Subject
from services.gateway.tenancy.prices import ModelPrice
from services.gateway.tenancy.receipts import Receipts
from services.gateway.tenancy.reservation import Reservations
from services.gateway.tenancy.token_estimate import TokenEstimate
from tests.support.waits import until

MOST = 3
ESTIMATE = TokenEstimate(model="m", prompt=4, output=10, max_output=10)
PRICE = ModelPrice(currency="USD", decimals=6, prompt=10**6, cached=10**6, completion=2 * 10**6)


async def settle(redis: Redis, subject: Subject, name: str, receipt: dict[str, Any]) -> None:
    reservation = ReservationId(name, name, 6.0, MOST)
    await limits_script.admit(redis, subject, ESTIMATE, reservation)
    await limits_script.settle(
        redis, subject, reservation, Produced(4, 2), outcome=Outcome.COMPLETE, receipt=json.dumps(receipt).encode()
    )


@pytest.fixture
async def key(redis: Redis) -> Key:
    return (await keys.create(redis, name="shop"))[0]


@pytest.fixture
def subject(key: Key) -> Subject:
    return Subject(key, "m", UNLIMITED, UNLIMITED)


async def found(redis: Redis, key: Key, name: str) -> dict[str, Any] | None:
    result = await receipts.find(redis, [key.id], name)
    return result.get(key.id)


async def test_the_latest_receipts_of_a_key_are_kept(redis: Redis, key: Key, subject: Subject) -> None:
    for number in range(MOST + 2):
        await settle(redis, subject, f"r{number}", {"number": number})
    kept = [await found(redis, key, f"r{number}") for number in range(MOST + 2)]
    assert kept == [None, None, *({"number": number} for number in range(2, MOST + 2))]
    name = receipts.name_of(key.id)
    for each in (name, f"{name}:at"):
        assert 0 < await redis.ttl(each) <= receipts.SECONDS
    assert await redis.hlen(name) == await redis.zcard(f"{name}:at") == MOST


async def test_a_receipt_is_unknown_after_a_day_and_removed_by_the_next(
    redis: Redis, key: Key, subject: Subject
) -> None:
    await settle(redis, subject, "old", {})
    name = receipts.name_of(key.id)
    await redis.zincrby(f"{name}:at", -receipts.SECONDS, "old")
    assert await found(redis, key, "old") is None
    await settle(redis, subject, "new", {})
    assert await redis.hkeys(name) == ["new"]


async def test_new_receipts_are_kept_after_the_clock_went_back(redis: Redis, key: Key, subject: Subject) -> None:
    for number in range(MOST):
        await settle(redis, subject, f"z{number}", {})
        await redis.zincrby(f"{receipts.name_of(key.id)}:at", 3600, f"z{number}")
    for number in range(MOST):
        await settle(redis, subject, f"r{number}", {"number": number})
    assert [await found(redis, key, f"r{number}") for number in range(MOST)] == [
        {"number": number} for number in range(MOST)
    ]
    assert await redis.zcard(f"{receipts.name_of(key.id)}:at") == MOST


async def test_a_repeated_settlement_keeps_the_first_receipt(redis: Redis, key: Key, subject: Subject) -> None:
    for number in range(2):
        await settle(redis, subject, "r", {"number": number})
    assert await found(redis, key, "r") == {"number": 0}


async def test_a_request_whose_gateway_has_died_has_a_receipt(redis: Redis, key: Key, subject: Subject) -> None:
    subject = Subject(key, "m", UNLIMITED, UNLIMITED, price=PRICE)
    reservation = ReservationId("r", "mine", 6.0, MOST)
    await limits_script.admit(redis, subject, ESTIMATE, reservation)
    progress = Progress(subject, ESTIMATE, reservation, Produced(4, 3, 1))
    await limits_script.renew(redis, [progress], reserve_output=10)
    await redis.zadd(f"{limits_script.name_of(key)}:slots", {"r": 1})
    await limits_script.show(redis, subject)
    receipt = await found(redis, key, "mine")
    assert receipt is not None
    assert (receipt["id"], receipt["model"], receipt["outcome"]) == ("mine", "m", "lost")
    assert receipt["usage"] == {
        "prompt_tokens": 4, "completion_tokens": 3, "cached_tokens": 1, "reasoning_tokens": 0
    }  # fmt: skip
    assert (receipt["cost"], receipt["currency"], receipt["decimals"]) == (10, "USD", 6)
    # Its gateway was only slow: the whole receipt replaces that one.
    await limits_script.settle(
        redis, subject, reservation, Produced(4, 5), outcome=Outcome.COMPLETE, receipt=b'{"whole": true}'
    )
    assert await found(redis, key, "mine") == {"whole": True}


async def test_without_receipts_nothing_is_kept(redis: Redis, key: Key, subject: Subject) -> None:
    reservation = ReservationId("r", "r", 6.0)
    await limits_script.admit(redis, subject, ESTIMATE, reservation)
    await limits_script.settle(redis, subject, reservation, Produced(1, 1), outcome=Outcome.COMPLETE)
    assert await redis.exists(receipts.name_of(key.id)) == 0


async def test_a_request_that_was_not_admitted_has_a_receipt(redis: Redis, key: Key) -> None:
    link = RedisLink(redis, timeout=5.0)
    writer = Receipts(link, most=MOST)
    writer.open()
    for number in range(MOST + 1):
        record = RequestRecord(f"r{number}", "POST", status=400, key_id=key.id)
        writer.end(record)
        writer.end(record)
        await until(lambda: not writer._waiting)
    unknown = RequestRecord("unknown", "POST", status=401)
    writer.end(unknown)
    await writer.close()
    assert await found(redis, key, "r0") is None, "the oldest is dropped"
    receipt = await found(redis, key, "r3")
    assert receipt is not None
    assert (receipt["outcome"], receipt["status"]) == ("rejected", 400)
    assert "cost" not in receipt


async def test_rejected_requests_displace_no_receipts_of_others(redis: Redis, key: Key, subject: Subject) -> None:
    await settle(redis, subject, "served", {"served": True})
    other, _ = await keys.create(redis, name="other")
    writer = Receipts(RedisLink(redis, timeout=5.0), most=MOST)
    for number in range(2 * receipts.MOST_WAITING):
        writer.end(RequestRecord(f"r{number}", "POST", status=400, key_id=key.id))
    writer.end(RequestRecord("of another key", "POST", status=400, key_id=other.id))
    await writer.close()
    assert await found(redis, key, "served") == {"served": True}
    assert await found(redis, other, "of another key") is not None
    assert await redis.hlen(receipts.rejected_name_of(key.id)) == MOST
    assert receipts.MOST_REJECTED < receipts.MOST_WAITING


async def test_while_redis_rejects_writes_there_are_no_receipts(redis: Redis, key: Key, subject: Subject) -> None:
    link = RedisLink(redis, timeout=5.0)
    link.rejection = WriteRejection.FULL
    writer = Receipts(link, most=MOST)
    writer.end(RequestRecord("rejected", "POST", status=400, key_id=key.id))
    await writer.close()
    local = FallbackLimits(RedisAwayPolicy.OPEN, gateways=lambda: 1)
    reservations = Reservations(
        link, local, reservation_seconds=6.0, renew_seconds=2.0, reserve_output=10, receipts=MOST
    )
    identity = reservations.new_id("served")
    decision = await reservations.decide(subject, ESTIMATE, identity)
    reservation = reservations.admitted(subject, ESTIMATE, identity, decision)
    reservation.record = RequestRecord("served", "POST", status=200, key_id=key.id)
    await reservation.settle(Outcome.COMPLETE)
    assert await redis.exists(receipts.name_of(key.id), receipts.rejected_name_of(key.id)) == 0
    assert await redis.xlen(f"vilix:{{{key.shard}}}:usage") == 1, "its usage is recorded"


async def test_operators_find_the_receipt_of_any_key(redis: Redis, key: Key, subject: Subject) -> None:
    other, _ = await keys.create(redis, name="other")
    await settle(redis, Subject(other, "m", UNLIMITED, UNLIMITED), "r", {"of": "other"})
    assert await receipts.find_of_any(redis, "r") == (other, {"of": "other"})
    assert await receipts.find_of_any(redis, "r", name_or_id="shop") is None
    assert await receipts.find_of_any(redis, "unknown") is None


async def test_an_id_of_two_keys_needs_the_name_of_one(redis: Redis, key: Key, subject: Subject) -> None:
    other, _ = await keys.create(redis, name="other")
    await settle(redis, subject, "r", {"of": "shop"})
    await settle(redis, Subject(other, "m", UNLIMITED, UNLIMITED), "r", {"of": "other"})
    with pytest.raises(receipts.SharedIdError) as raised:
        await receipts.find_of_any(redis, "r")
    assert {owner.name for owner in raised.value.owners} == {"shop", "other"}
    assert await receipts.find_of_any(redis, "r", name_or_id="shop") == (key, {"of": "shop"})
