"""Budgets in money in a real Valkey: exact to the unit at their limit, and the same costs as in Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from services.gateway.record import Outcome
from services.gateway.tenancy import keys, limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import COSTS, UNLIMITED, Limits
from services.gateway.tenancy.limits_script import Produced, ReservationId, Subject
from services.gateway.tenancy.prices import MAX_PRICE, ModelPrice
from services.gateway.tenancy.token_estimate import TokenEstimate

PRICE = ModelPrice(currency="USD", decimals=6, prompt=1_500_000, cached=0, completion=2_500_000)
ESTIMATE = TokenEstimate(model="m", prompt=3, output=5, max_output=5)
COST = 17
"""Costs of the estimate: 4.5 and 12.5 units."""
units = st.integers(0, MAX_PRICE)
tokens = st.integers(0, 2**32 - 1)


async def admits(redis: Redis, subject: Subject, name: str) -> str | None:
    """Return the limit that rejects a request; None if it is admitted."""
    decision = await limits_script.admit(redis, subject, ESTIMATE, ReservationId(name, name, 6.0))
    return decision.rejection.limit if decision.rejection is not None else None


def subject_of(key: Key, *, of_model: bool, price: ModelPrice | None = PRICE, **limits: int) -> Subject:
    own = Limits(**limits)
    return Subject(key, "m", UNLIMITED if of_model else own, own if of_model else UNLIMITED, price=price)


@pytest.mark.parametrize("of_model", [False, True], ids=["key", "model"])
@pytest.mark.parametrize("period", COSTS)
async def test_a_budget_admits_what_fits_to_the_unit(redis: Redis, *, period: str, of_model: bool) -> None:
    key, _ = await keys.create(redis, name="shop")
    assert await admits(redis, subject_of(key, of_model=of_model, **{period: COST - 1}), "first") == period
    subject = subject_of(key, of_model=of_model, **{period: 2 * COST})
    assert [await admits(redis, subject, name) for name in ("first", "second", "third")] == [None, None, period]
    # What the first one has not used is free for others.
    await limits_script.settle(redis, subject, ReservationId("first", "", 6.0), Produced(), outcome=Outcome.COMPLETE)
    assert [await admits(redis, subject, name) for name in ("third", "fourth")] == [None, period]
    free = subject_of(key, of_model=of_model, price=None, **{period: 1})
    assert await admits(redis, free, "free") is None, "a model without a price costs nothing"


@pytest.mark.parametrize("period", COSTS)
async def test_a_used_up_budget_admits_no_small_request(redis: Redis, *, period: str) -> None:
    key, _ = await keys.create(redis, name="shop")
    cheap = ModelPrice(currency="USD", decimals=6, prompt=20_000, cached=0, completion=0)
    subject = subject_of(key, of_model=False, price=cheap, **{period: 2})
    for name in ("first", "second"):
        assert await admits(redis, subject, name) is None
        produced = Produced(3)
        await limits_script.settle(redis, subject, ReservationId(name, "", 6.0), produced, outcome=Outcome.COMPLETE)
    assert await admits(redis, subject, "third") == period, "each small request has cost a unit"
    empty = TokenEstimate(model="m", prompt=0, output=0, max_output=0)
    decision = await limits_script.admit(redis, subject, empty, ReservationId("empty", "", 6.0))
    assert decision.rejection is not None, "nothing is left"
    zero = subject_of(key, of_model=False, price=ModelPrice("USD", 6, 0, 0, 0), **{period: 2})
    assert await admits(redis, zero, "free") is None


async def test_large_amounts_are_reported_to_the_unit(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop")
    subject = subject_of(key, of_model=False, daily_cost=10**13)
    now = datetime.now(UTC)
    amount = 2**53 - 1
    for day in (now, now + timedelta(days=1)):
        await redis.hset(f"vilix:{{{key.shard}}}:usage:{key.id}:{day:%Y-%m-%d}", "spent", amount)
    daily = (await limits_script.show(redis, subject)).scopes["key"].daily_cost
    assert (type(daily), daily) == (int, amount)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    price=st.builds(lambda *of: ModelPrice("USD", 6, *of), units, units, units),
    produced=st.builds(Produced, tokens, tokens, tokens),
)
async def test_the_script_computes_the_costs_of_prices(redis: Redis, price: ModelPrice, produced: Produced) -> None:
    await redis.flushall()
    key = Key(id="k", name="k", created=0)
    subject = subject_of(key, of_model=False, price=price)
    await limits_script.settle(redis, subject, ReservationId("r", "r", 6.0), produced, outcome=Outcome.COMPLETE)
    ((_, record),) = await redis.xrange(f"vilix:{{{key.shard}}}:usage")
    assert int(record["cost"]) == price.cost(produced)
    assert (record["currency"], record["decimals"]) == ("USD", "6")
