"""Admission by Redis: which requests pass, which are rejected, and what clients are told about their limits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import openai_errors
from services.gateway.dialects.openai_limits import limit_headers
from services.gateway.errors import ApiError
from services.gateway.limit_status import duration
from services.gateway.record import Outcome
from services.gateway.redis.connection import connect
from services.gateway.redis.link import RedisLink
from services.gateway.settings import RedisAwayPolicy
from services.gateway.tenancy import gateway_registry as gateway_registry_module
from services.gateway.tenancy import keys, limits_script
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.gateway_registry import GATEWAYS, GatewayRegistry
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.limits_script import Subject
from services.gateway.tenancy.reservation import AT_ONCE, Reservation, Reservations
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.messages.message import Message
from tests.support.waits import until

SMALL = TokenEstimate(model="m", prompt=10, output=20, max_output=None)


@pytest.fixture
async def reservations(redis: Redis) -> AsyncIterator[Reservations]:
    link = RedisLink(redis, timeout=5)
    reservations = Reservations(
        link,
        FallbackLimits(RedisAwayPolicy.CLOSED, lambda: 1),
        reservation_seconds=60,
        renew_seconds=0.05,
        reserve_output=20,
    )
    reservations.open()
    yield reservations
    await reservations.close()


async def new_subject(redis: Redis, **draft: Any) -> Subject:
    key, _ = await keys.create(redis, name="shop", **draft)
    return Tiers(None).subject(key, "m")


async def admit(reservations: Reservations, subject: Subject, estimate: TokenEstimate = SMALL) -> Reservation:
    reservation_id = reservations.new_id("r")
    return reservations.admitted(
        subject, estimate, reservation_id, await reservations.decide(subject, estimate, reservation_id)
    )


async def rejected(reservations: Reservations, subject: Subject, estimate: TokenEstimate = SMALL) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await admit(reservations, subject, estimate)
    assert caught.value.status == 429
    return caught.value


def headers_of(error: ApiError) -> dict[str, str]:
    return openai_errors.render(error).headers


def type_of(error: ApiError) -> str:
    found: str = json.loads(openai_errors.body(error))["error"]["type"]
    return found


async def admitted(reservations: Reservations, subject: Subject) -> Reservation | None:
    try:
        return await admit(reservations, subject)
    except ApiError as error:
        assert error.status == 429
        return None


@pytest.mark.parametrize("limit", ["rpm", "concurrency"])
async def test_of_a_hundred_concurrent_requests_exactly_the_limit_pass(
    redis: Redis, reservations: Reservations, limit: str
) -> None:
    subject = await new_subject(redis, limits=Limits(**{limit: 5}))
    results = await asyncio.gather(*(admitted(reservations, subject) for _ in range(100)))
    assert sum(reservation is not None for reservation in results) == 5


async def test_a_rejected_request_gets_retry_after_and_is_not_counted(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(rpm=60))
    while reservation := await admitted(reservations, subject):
        await reservation.settle(Outcome.COMPLETE)
    error = await rejected(reservations, subject)
    assert 1 <= int(headers_of(error)["retry-after-ms"]) <= 1000
    assert headers_of(error)["Retry-After"] == "1"
    assert headers_of(error)["x-ratelimit-remaining-requests"] == "0"
    await asyncio.sleep(int(headers_of(error)["retry-after-ms"]) / 1000)
    assert await admitted(reservations, subject)


async def test_headers_report_the_remaining_requests_and_tokens(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(rpm=3, tpm=100_000))
    headers = [limit_headers((await admit(reservations, subject)).limits) for _ in range(3)]
    assert [each["x-ratelimit-remaining-requests"] for each in headers] == ["2", "1", "0"]
    assert [each["x-ratelimit-remaining-tokens"] for each in headers] == ["99970", "99940", "99910"]
    assert {each["x-ratelimit-limit-requests"] for each in headers} == {"3"}
    assert {each["x-ratelimit-limit-tokens"] for each in headers} == {"100000"}


async def test_headers_report_the_models_limits_if_less_remains_of_them(
    redis: Redis, reservations: Reservations
) -> None:
    subject = await new_subject(redis, limits=Limits(rpm=100), model_limits={"m": Limits(rpm=2)})
    first = await admit(reservations, subject)
    assert limit_headers(first.limits)["x-ratelimit-limit-requests"] == "2"
    await admit(reservations, subject)
    error = await rejected(reservations, subject)
    assert (error.message.id, error.message.parameters["count"]) == ("request_rate_of_model_exceeded", 2)
    assert error.message.parameters["model"] == "m"
    assert headers_of(error)["x-ratelimit-limit-requests"] == "2"
    # A request that one limit rejects uses nothing of the other.
    state = await limits_script.show(redis, subject)
    assert state.scopes["key"].requests == 98


@pytest.mark.parametrize(
    ("limits", "message", "retry"),
    [
        (
            Limits(tpm=29),
            Message("request_over_token_rate", limit=29, model="", need=30, prompt=10, output=20),
            False,
        ),
        (
            Limits(tpm=50),
            Message("token_rate_exceeded", limit=50, model="", left=20, need=30, prompt=10, output=20, wait=""),
            True,
        ),
        (Limits(concurrency=1), Message("concurrency_exceeded", count=1, model=""), True),
    ],
)
async def test_a_rejection_names_its_limit(
    redis: Redis, reservations: Reservations, limits: Limits, message: Message, retry: bool
) -> None:
    subject = await new_subject(redis, limits=limits)
    if retry:
        assert await admitted(reservations, subject)
    error = await rejected(reservations, subject)
    # How long to wait depends on when the test runs.
    parameters = {**error.message.parameters, **({"wait": ""} if "wait" in message.parameters else {})}
    assert Message(error.message.id, **parameters) == message
    assert (type_of(error), error.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert headers_of(error).get("x-should-retry") == (None if retry else "false")


@pytest.mark.parametrize("period", ["daily", "monthly"])
async def test_a_used_up_budget_is_insufficient_quota(redis: Redis, reservations: Reservations, period: str) -> None:
    subject = await new_subject(redis, limits=Limits(**{f"{period}_tokens": 50}))
    reservation = await admit(reservations, subject)
    error = await rejected(reservations, subject)
    assert error.message.id == f"{period}_budget_exceeded"
    assert error.message.parameters.items() >= {"limit": 50, "used": 0, "reserved": 30}.items()
    reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=10, completion_tokens=15))])
    await reservation.settle(Outcome.COMPLETE)
    error = await rejected(reservations, subject)
    assert error.message.parameters.items() >= {"used": 25, "reserved": 0}.items()
    assert (type_of(error), error.code) == ("insufficient_quota", "insufficient_quota")
    assert headers_of(error)["x-should-retry"] == "false"
    assert 0 < int(headers_of(error)["Retry-After"]) <= {"daily": 86_400, "monthly": 31 * 86_400}[period]


async def test_the_prompts_estimate_is_corrected_when_counted_and_the_rest_at_the_end(
    redis: Redis, reservations: Reservations
) -> None:
    subject = await new_subject(redis, limits=Limits(tpm=10_000))
    reservation = await admit(reservations, subject)
    reservation.count([pb.Event(started=pb.Started(prompt_tokens=500))])

    async def is_corrected() -> bool:
        return 9_480 <= ((await limits_script.show(redis, subject)).scopes["key"].tokens or 0) <= 9_490

    await until(is_corrected, what="the reservation is renewed")
    await reservation.settle(Outcome.CLIENT_GONE)
    state = (await limits_script.show(redis, subject)).scopes["key"]
    assert (state.reserved, state.slots, state.daily, state.monthly) == (0, 0, 500, 500)


async def test_tokens_are_billed_while_the_request_runs(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis)
    reservation = await admit(reservations, subject)
    reservation.count([pb.Event(started=pb.Started(prompt_tokens=5))])
    reservation.count([pb.Event(delta=pb.Delta(content="x", token_count=37))])

    async def is_billed() -> bool:
        return (await limits_script.show(redis, subject)).scopes["key"].daily == 42

    await until(is_billed, what="the reservation is renewed")
    assert (await limits_script.show(redis, subject)).scopes["key"].reserved == 20, (
        "further output tokens were reserved"
    )
    await reservation.settle(Outcome.COMPLETE)


async def test_a_request_is_settled_once(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(concurrency=2))
    reservation = await admit(reservations, subject)
    other = await admit(reservations, subject)
    reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=3, completion_tokens=4))])
    await asyncio.gather(reservation.settle(Outcome.COMPLETE), reservation.settle(Outcome.CLIENT_GONE))
    await limits_script.settle(redis, subject, reservation.reservation_id, reservation.produced, outcome=Outcome.FAILED)
    state = (await limits_script.show(redis, subject)).scopes["key"]
    assert (state.slots, state.daily) == (1, 7)
    await other.settle(Outcome.COMPLETE)
    records = await redis.xrange(f"vilix:{{{subject.key.shard}}}:usage")
    assert [fields["outcome"] for _, fields in records] == ["complete", "complete"]


async def test_a_flushed_script_is_sent_again(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(rpm=3))
    assert await admitted(reservations, subject)
    await redis.script_flush()
    assert await admitted(reservations, subject)


async def test_changed_limits_apply_from_the_next_request(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(concurrency=1))
    assert await admitted(reservations, subject)
    await rejected(reservations, subject)
    key = await keys.change(redis, "shop", keys.Change(limits=Limits(concurrency=2)))
    assert await admitted(reservations, Tiers(None).subject(key, "m"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.012, "12ms"), (1, "1s"), (5.25, "5.25s"), (90, "1m30s"), (60, "1m0s"), (0, "0ms")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_key_belongs_to_one_shard() -> None:
    key = Key(id="key_x", name="n", created=0)
    assert limits_script.name_of(key).startswith(f"vilix:{{{key.shard}}}:")


async def an_hour_ahead(redis: Redis) -> int:
    """Move every stored time an hour ahead, as if the clock had gone back an hour. Returns the number of times."""
    hour, moved = 3_600_000_000, 0
    for name in await redis.keys("vilix:*"):
        match await redis.type(name):
            case "hash":
                for field in await redis.hkeys(name):
                    if field.endswith(":at"):
                        await redis.hincrby(name, field, hour)
                        moved += 1
            case "zset":
                for member in await redis.zrange(name, 0, -1):
                    await redis.zincrby(name, 3600 if name == "vilix:gateways" else hour, member)
                    moved += 1
    return moved


@pytest.mark.parametrize("limit", ["rpm", "tpm"])
async def test_a_clock_that_goes_back_delays_no_request(redis: Redis, reservations: Reservations, limit: str) -> None:
    # The limit is so high that it is available again within a fraction of a second.
    subject = await new_subject(redis, limits=Limits(**{limit: 600 if limit == "rpm" else 30_000}))
    while reservation := await admitted(reservations, subject):
        if limit == "tpm":
            reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=10, completion_tokens=5000))])
        await reservation.settle(Outcome.COMPLETE)
    await rejected(reservations, subject)
    assert await an_hour_ahead(redis)
    error = await rejected(reservations, subject)
    await asyncio.sleep(int(headers_of(error)["retry-after-ms"]) / 1000)
    await until(lambda: admitted(reservations, subject), what="a request is admitted")


async def test_a_dead_gateways_reservation_expires_in_time_although_the_clock_went_back(
    redis: Redis, reservations: Reservations
) -> None:
    subject = await new_subject(redis, limits=Limits(concurrency=1))
    reservation_id = limits_script.ReservationId("gone", "r", 0.3)
    assert (await limits_script.admit(redis, subject, SMALL, reservation_id)).rejection is None
    assert await an_hour_ahead(redis)
    await rejected(reservations, subject)
    await until(lambda: admitted(reservations, subject), 10, "the reservation has ended")


async def test_a_queue_keeps_its_order_and_drops_gone_clients_although_the_clock_went_back(
    redis: Redis, reservations: Reservations
) -> None:
    subject = replace(await new_subject(redis, limits=Limits(concurrency=1)), queue_length=9)
    assert await admitted(reservations, subject)
    first, second, gone = (reservations.new_id("r") for _ in range(3))

    async def position(reservation_id: limits_script.ReservationId) -> int | None:
        return (await reservations.decide(subject, SMALL, reservation_id)).ahead

    assert [await position(reservation_id) for reservation_id in (gone, first)] == [0, 1]
    assert await an_hour_ahead(redis)
    assert [await position(reservation_id) for reservation_id in (first, second)] == [1, 2]

    async def has_forgotten() -> bool:
        return [await position(reservation_id) for reservation_id in (second, first)] == [1, 0]

    await until(has_forgotten, 10, "the one that is gone is forgotten")


async def test_a_gateway_ends_the_reservations_of_dead_ones(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_registry_module, "BEAT_SECONDS", 0.1)
    subjects = [Tiers(None).subject((await keys.create(redis, name=f"shop {number}"))[0], "m") for number in range(8)]
    reservation_id = limits_script.ReservationId("gone", "r", 0.3)
    for subject in subjects[:4]:
        await limits_script.admit(redis, subject, SMALL, reservation_id)
    assert await an_hour_ahead(redis)
    for subject in subjects[4:]:
        await limits_script.admit(redis, subject, SMALL, reservation_id)
    link = RedisLink(connect(redis_url, timeout=5), timeout=5)
    gateway_registry = GatewayRegistry(link)
    gateway_registry.open()

    async def ended() -> bool:
        names = {f"vilix:{{{subject.key.shard}}}:usage" for subject in subjects}
        return sum([await redis.xlen(name) for name in names]) == len(subjects)

    try:
        await until(ended, 20, "each has a usage record, without another request of its key")
    finally:
        await gateway_registry.close()
        await link.close()


async def test_all_running_requests_are_renewed(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(daily_tokens=100_000))
    running = [await admit(reservations, subject) for _ in range(2 * AT_ONCE + 1)]
    await running.pop().settle(Outcome.COMPLETE)
    for number, reservation in enumerate(running):
        reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=10, completion_tokens=number))])
    produced = sum(10 + number for number in range(len(running)))

    async def billed() -> bool:
        return (await limits_script.show(redis, subject)).scopes["key"].daily == produced

    await until(billed, 20, "the tokens of each are billed, once")
    assert {reservation.spent for reservation in running} == {None}


async def test_dead_gateways_are_not_counted_although_the_clock_went_back(redis: Redis) -> None:
    gateway_registry = GatewayRegistry(RedisLink(redis, timeout=5))
    await redis.zadd(GATEWAYS, {"gone": time.time() + 3600})
    assert await gateway_registry._count(redis) == 2
    assert (await redis.zscore(GATEWAYS, "gone") or 0) < time.time() + 1, "its heartbeat in the future counts as now"


async def test_daily_budgets_are_not_affected_by_times_in_the_future(redis: Redis, reservations: Reservations) -> None:
    subject = await new_subject(redis, limits=Limits(daily_tokens=100, monthly_tokens=100))
    reservation = await admit(reservations, subject)
    reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=10, completion_tokens=15))])
    await reservation.settle(Outcome.COMPLETE)
    await an_hour_ahead(redis)
    assert await admitted(reservations, subject)
    assert (await limits_script.show(redis, subject)).scopes["key"].daily == 25
