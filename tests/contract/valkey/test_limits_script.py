"""The limits script in a real Valkey against a reference model: random requests, renewals and lost gateways."""

from __future__ import annotations

import datetime
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import redis as sync_redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.gateway.record import Outcome
from services.gateway.tenancy import limits_script
from tests.contract.valkey.reference_limits import COSTS, MINUTE, ReferenceLimits

NAME = "vilix:{s00}:limits:key_test"
# A day and a month end ten minutes later.
BEGINNING = 1_772_322_600_000_000
DURATION = 6_000_000
MODELS = ("a", "b:c")
# The test sets the time.
CLOCK = "redis.call('TIME')"
SOURCE = limits_script.SCRIPT._source.replace(CLOCK, "cjson.decode(ARGV[3])")

small = st.integers(0, 30)
amount = st.integers(20, 200)
each_limit = {
    "rpm": st.integers(1, 10),
    "tpm": amount,
    "concurrency": st.integers(1, 4),
    "daily": amount,
    "monthly": amount,
    "daily_cost": amount,
    "weekly_cost": amount,
    "monthly_cost": amount,
}
price = st.sampled_from([0, 1, 400_000, 1_000_000, 2_500_000])
some_prices = st.dictionaries(
    st.sampled_from(MODELS), st.fixed_dictionaries({"prompt": price, "cached": price, "completion": price})
)
"""Prices of a million tokens. A cached token costs at most as much as others: it is not known which will be cached."""
# Single limits test each decision; all together test which limit is reported.
some_limits = st.one_of(
    *(st.fixed_dictionaries({name: value}) for name, value in each_limit.items()),
    st.fixed_dictionaries({}, optional=each_limit),
)


class LimitsMachine(RuleBasedStateMachine):
    client: ClassVar[sync_redis.Redis]

    @initialize(
        key=some_limits, of_models=st.fixed_dictionaries(dict.fromkeys(MODELS, some_limits)), prices=some_prices
    )
    def begin(
        self, key: dict[str, int], of_models: dict[str, dict[str, int]], prices: dict[str, dict[str, int]]
    ) -> None:
        self.client.flushall()
        for each in prices.values():
            each["cached"] = min(each["cached"], each["prompt"])
        self.model = ReferenceLimits(key, of_models, prices=prices)
        self.now = BEGINNING
        self.ids = (f"r{number}" for number in itertools.count())
        self.of: dict[str, str] = {}
        self.produced: dict[str, tuple[int, int]] = {}
        self.cached: dict[str, int] = {}

    def run(self, operation: str, model: str, **more: Any) -> dict[str, Any]:
        seconds, rest = divmod(self.now, 1_000_000)
        request = {
            "model": model,
            "owner": "o",
            "request_id": "x",
            "limits": self.model.limits,
            "model_limits": self.model.model_limits[model],
            "stream_length": 10_000,
            **({"prices": self.model.prices[model]} if model in self.model.prices else {}),
            **{name: value for name, value in more.items() if value is not None},
        }
        arguments = (operation, json.dumps(request), json.dumps([str(seconds), str(rest)]))
        return json.loads(self.client.eval(SOURCE, 1, NAME, *arguments))  # type: ignore[no-any-return,arg-type]

    @rule(passed=st.one_of(st.integers(0, 2_000_000), st.integers(0, 3 * MINUTE), st.integers(0, 7_000_000)))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule(passed=st.one_of(st.integers(1, 2_000_000), st.just(3_600_000_000)))
    def clock_goes_back(self, passed: int) -> None:
        self.now -= passed
        self.model.clock_goes_back(self.now)

    @rule(model=st.sampled_from(MODELS))
    def peek(self, model: str) -> None:
        self.model.reap(self.now)
        rejections = self.model.rejections(model, 1, 0, self.now)
        response = self.run("peek", model, estimate=1, output=0)
        assert response["admitted"] == (not rejections)
        if rejections:
            assert response["rejection"]["limit"] in rejections
        waits = self.run("peek", model, estimate=1, output=0, queue=5)
        assert waits["admitted"] == (not rejections.keys() - {"concurrency"})

    @rule(model=st.sampled_from(MODELS), estimate=small, output=small, twice=st.booleans())
    def admit(self, model: str, estimate: int, output: int, twice: bool) -> None:
        reservation_id = next(self.ids)
        self.model.reap(self.now)
        rejections = self.model.rejections(model, estimate, output, self.now)
        admitted = self.model.admit(reservation_id, model, estimate, output, now=self.now, duration=DURATION)
        for _ in range(1 + (twice and admitted)):
            response = self.run("admit", model, id=reservation_id, estimate=estimate, output=output, duration=DURATION)
            assert response["admitted"] == admitted
        if admitted:
            self.of[reservation_id] = model
            self.produced[reservation_id] = (0, 0)
            return
        rejection = response["rejection"]
        assert (rejection["scope"], rejection["wait"]) in rejections[rejection["limit"]]
        self.assert_is_the_right_rejection(rejection, rejections)

    def assert_is_the_right_rejection(
        self, rejection: dict[str, Any], rejections: dict[str, set[tuple[str, int]]]
    ) -> None:
        budgets = rejections.keys() & {"daily", "monthly", *COSTS}
        waits = [wait for limit in ("tpm", "rpm") for _, wait in rejections.get(limit, ())]
        if budgets:
            assert rejection["limit"] in budgets
        elif waits:
            assert rejection["wait"] == (-1 if -1 in waits else max(waits))
        else:
            assert rejection["limit"] == "concurrency"

    @precondition(lambda self: self.of)
    @rule(
        data=st.data(), more=small, prompt=st.one_of(st.none(), small), maximum=st.one_of(st.none(), small), hit=small
    )
    def renew(self, data: st.DataObject, more: int, prompt: int | None, maximum: int | None, hit: int) -> None:
        reservation_id = data.draw(st.sampled_from(sorted(self.of)))
        model, (counted, completion) = self.of[reservation_id], self.produced[reservation_id]
        prompt = None if prompt is None and not counted else (counted or prompt)
        if reservation_id not in self.model.settled:
            completion += more
            self.produced[reservation_id] = (prompt or 0, completion)
        cached = self.cached.setdefault(reservation_id, hit) if prompt is not None else 0
        spent = self.model.renew(
            reservation_id,
            model,
            prompt=prompt,
            cached=cached,
            completion=completion,
            maximum=maximum,
            reserve=10,
            now=self.now,
            duration=DURATION,
        )
        response = self.run(
            "renew",
            model,
            id=reservation_id,
            prompt=prompt,
            cached=cached,
            completion=completion,
            max_output=maximum,
            reserve=10,
            duration=DURATION,
        )
        assert ("spent" in response) == spent

    @precondition(lambda self: self.of)
    @rule(data=st.data(), more=small, prompt=small)
    def settle(self, data: st.DataObject, more: int, prompt: int) -> None:
        reservation_id = data.draw(st.sampled_from(sorted(self.of)))
        model, (counted, completion) = self.of[reservation_id], self.produced[reservation_id]
        if reservation_id not in self.model.settled:
            self.produced[reservation_id] = (counted or prompt, completion + more)
        prompt, completion = self.produced[reservation_id]
        cached = self.cached.setdefault(reservation_id, 0)
        self.model.settle(reservation_id, model, prompt, completion, self.now, cached=cached)
        more_fields = {"cached": cached, "reasoning": 0, "outcome": "complete"}
        self.run("settle", model, id=reservation_id, prompt=prompt, completion=completion, **more_fields)

    @rule(number=amount, name=st.sampled_from(["daily", "concurrency"]))
    def a_limit_is_changed(self, number: int, name: str) -> None:
        self.model.limits = {**self.model.limits, name: number}

    @invariant()
    def both_have_the_same_state(self) -> None:
        if not hasattr(self, "model"):
            return
        self.model.reap(self.now)
        for model in MODELS:
            response = self.run("show", model)["scopes"]
            for scope, its_limits, only in self.model.scopes(model):
                seen = response[scope]
                assert seen["slots"] == self.model.slots(only)
                assert seen["reserved"] == self.model.reserved(only)
                assert seen["daily"] == self.model.used("daily", only, self.now)
                assert seen["monthly"] == self.model.used("monthly", only, self.now)
                for period in set(COSTS) & its_limits.keys():
                    assert int(seen[period]) == self.model.spent(period, only, self.now)
                    assert int(seen["reserved_cost"]) == self.model.reserved_cost(only)
                if "rpm" in its_limits:
                    filled = self.model.level(self.model.requests, its_limits["rpm"], only, self.now)
                    assert seen["requests"] == max(0, (its_limits["rpm"] - filled) // 1)
                if "tpm" in its_limits:
                    filled = self.model.level(self.model.tokens, its_limits["tpm"], only, self.now)
                    filled += self.model.reserved(only)
                    assert seen["tokens"] == max(0, (its_limits["tpm"] - filled) // 1)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for reservation_id, model in self.of.items():
            prompt, completion = self.produced[reservation_id]
            cached = self.cached.setdefault(reservation_id, 0)
            self.model.settle(reservation_id, model, prompt, completion, self.now, cached=cached)
            more = {"cached": cached, "reasoning": 0, "outcome": "complete"}
            self.run("settle", model, id=reservation_id, prompt=prompt, completion=completion, **more)
        self.both_have_the_same_state()
        scopes = self.run("show", "a")["scopes"]
        assert scopes["key"]["slots"] == scopes["key"]["reserved"] == 0
        records = [fields for _, fields in self.client.xrange("vilix:{s00}:usage")]  # type: ignore[union-attr]
        last = {fields["id"]: (int(fields["prompt_tokens"]), int(fields["completion_tokens"])) for fields in records}
        assert last == self.produced, "the last record of a request has all its tokens"
        bills = {fields["id"]: int(fields["cost"]) for fields in records if "cost" in fields}
        assert bills == {each: cost for each, cost in self.model.bills.items() if self.of[each] in self.model.prices}
        assert int(self.client.hget(NAME, "reserved_cost") or 0) == 0  # type: ignore[arg-type]
        twice = {
            reservation_id for reservation_id, count in Counter(fields["id"] for fields in records).items() if count > 1
        }
        assert twice <= self.model.lost.keys(), "a request has one record, unless its gateway was considered dead"


def test_the_script_decides_as_the_reference_model_does(redis_url: str) -> None:
    assert SOURCE.count("ARGV[3]") == 1
    with sync_redis.Redis.from_url(redis_url, decode_responses=True) as LimitsMachine.client:
        run_state_machine_as_test(
            LimitsMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
        )


@pytest.mark.parametrize(
    ("day", "date"),
    [("1970-01-01", 0), ("2000-02-29", 951_782_400), ("2026-12-31", 1_798_675_200), ("2100-03-01", 4_107_542_400)],
)
def test_days_and_months_are_those_of_the_calendar(redis_url: str, day: str, date: int) -> None:
    with sync_redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        request = {"model": "a", "limits": {}, "model_limits": {}, "owner": "", "request_id": "", "id": "r"}
        request |= {"prompt": 1, "completion": 1, "cached": 0, "reasoning": 0, "outcome": "", "stream_length": 1}
        now = json.dumps([str(date + 86_399), "999999"])
        request["prices"] = {"prompt": 10**6, "cached": 10**6, "completion": 10**6}
        client.eval(SOURCE, 1, NAME, "settle", json.dumps(request), now)  # type: ignore[arg-type]
        monday = datetime.date.fromisoformat(day)
        monday -= datetime.timedelta(days=monday.weekday())
        assert (
            set(client.keys("*usage:*"))
            == {  # type: ignore[arg-type]
                f"vilix:{{s00}}:usage:key_test:{day}",
                f"vilix:{{s00}}:usage:key_test:{day[:7]}",
                f"vilix:{{s00}}:usage:key_test:week:{monday}",
            }
        )


EARLIER = {
    "model": "a",
    "owner": "o",
    "request_id": "x",
    "counted": False,
    "prompt": 10,
    "completion": 5,
    "estimate": 0,
    "output": 15,
}
"""A reservation as gateways wrote it before it had the field `length`."""


@pytest.fixture
def earlier_gateway(redis_url: str) -> Iterator[sync_redis.Redis]:
    """A Redis in which a gateway of an earlier version runs the request `r`."""
    with sync_redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        client.hset(NAME, mapping={"reserved": 15, "reserved:a": 15})
        client.hset(f"{NAME}:leases", "r", json.dumps(EARLIER))
        for slots in (f"{NAME}:slots", f"{NAME}:slots:a"):
            client.zadd(slots, {"r": BEGINNING + DURATION})
        client.zadd("vilix:{s00}:due", {"key_test": BEGINNING + DURATION})
        yield client


def run_at(client: sync_redis.Redis, now: int, operation: str, **more: Any) -> dict[str, Any]:
    """Run an operation of a gateway of this version at a time in microseconds."""
    request = {"model": "a", "owner": "o", "request_id": "x", "limits": {}, "model_limits": {}, "stream_length": 10}
    seconds, rest = divmod(now, 1_000_000)
    arguments = (operation, json.dumps(request | more), json.dumps([str(seconds), str(rest)]))
    return json.loads(client.eval(SOURCE, 1, NAME, *arguments))  # type: ignore[no-any-return,arg-type]


def usage_records(client: sync_redis.Redis) -> list[tuple[str, str, str]]:
    records = [fields for _, fields in client.xrange("vilix:{s00}:usage")]  # type: ignore[union-attr]
    return [(fields["prompt_tokens"], fields["completion_tokens"], fields["outcome"]) for fields in records]


def test_a_reservation_of_an_earlier_gateway_is_renewed_and_settled(earlier_gateway: sync_redis.Redis) -> None:
    scopes = run_at(earlier_gateway, BEGINNING, "show")["scopes"]
    assert (scopes["key"]["slots"], scopes["model"]["slots"], scopes["key"]["reserved"]) == (1, 1, 15)
    more = {"id": "r", "prompt": 10, "duration": DURATION}
    assert run_at(earlier_gateway, BEGINNING + 1, "renew", **more, completion=8, reserve=20)["alive"]
    outcome = {"cached": 0, "reasoning": 0, "outcome": Outcome.COMPLETE}
    run_at(earlier_gateway, BEGINNING + 2, "settle", **more, completion=12, **outcome)
    scopes = run_at(earlier_gateway, BEGINNING + 3, "show")["scopes"]
    assert (scopes["key"]["slots"], scopes["model"]["slots"], scopes["key"]["reserved"]) == (0, 0, 0)
    assert usage_records(earlier_gateway) == [("10", "12", "complete")]


def test_a_reservation_of_an_earlier_gateway_expires(earlier_gateway: sync_redis.Redis) -> None:
    scopes = run_at(earlier_gateway, BEGINNING + DURATION, "show")["scopes"]
    assert (scopes["key"]["slots"], scopes["key"]["reserved"]) == (0, 0)
    assert usage_records(earlier_gateway) == [("10", "5", "lost")]


def test_a_reservation_of_an_earlier_gateway_is_shortened_after_the_clock_went_back(
    earlier_gateway: sync_redis.Redis,
) -> None:
    run_at(earlier_gateway, BEGINNING - 2 * MINUTE, "peek", estimate=1, output=0, duration=DURATION)
    assert earlier_gateway.zscore(f"{NAME}:slots", "r") == BEGINNING - 2 * MINUTE + DURATION


PRICES = {"prompt": 10**6, "cached": 10**5, "completion": 2 * 10**6, "currency": "USD", "decimals": 6}


def begin_priced(client: sync_redis.Redis, reservation_id: str, model: str = "a") -> dict[str, Any]:
    """Admit and renew a request with prices that has used 10 and 5 tokens. Return the arguments of its operations."""
    more = {"id": reservation_id, "duration": DURATION, "prices": PRICES, "model": model}
    assert run_at(client, BEGINNING, "admit", **more, estimate=20, output=15)["admitted"]
    run_at(client, BEGINNING + 1, "renew", **more, prompt=10, cached=0, completion=5, reserve=15)
    return more


def end_as_an_earlier_gateway(client: sync_redis.Redis, reservation_id: str, model: str = "a") -> None:
    """End an expired reservation as gateways did that knew no prices."""
    client.hdel(f"{NAME}:leases", reservation_id)
    for slots in (f"{NAME}:slots", f"{NAME}:slots:{model}"):
        client.zrem(slots, reservation_id)
    client.set(f"{NAME}:settled:{reservation_id}", json.dumps({"prompt": 10, "completion": 5, "final": False}))


def test_a_late_settlement_is_charged_once_though_an_earlier_gateway_has_ended_it(
    earlier_gateway: sync_redis.Redis,
) -> None:
    more = begin_priced(earlier_gateway, "priced")
    end_as_an_earlier_gateway(earlier_gateway, "priced")
    settled = {"prompt": 10, "completion": 6, "cached": 0, "reasoning": 0, "outcome": "complete"}
    run_at(earlier_gateway, BEGINNING + 2, "settle", **more, **settled)
    assert earlier_gateway.hget("vilix:{s00}:usage:key_test:2026-02", "spent") == "22"


def test_money_that_an_earlier_gateway_has_not_released_is_free_once_nothing_runs(
    earlier_gateway: sync_redis.Redis,
) -> None:
    run_at(earlier_gateway, BEGINNING + 2 * DURATION, "show")
    begin_priced(earlier_gateway, "first", "b")
    end_as_an_earlier_gateway(earlier_gateway, "first", "b")
    assert earlier_gateway.hget(NAME, "reserved_cost:b") == "20"
    limits = {"limits": {"daily_cost": 60}, "model_limits": {"daily_cost": 60}, "prices": PRICES}
    scopes = run_at(earlier_gateway, BEGINNING + 2, "show", **limits)["scopes"]
    assert [int(scope["reserved_cost"]) for scope in scopes.values()] == [0, 0]
    for field in ("reserved_cost", "reserved_cost:b"):
        assert not earlier_gateway.hexists(NAME, field)


def test_a_refund_after_the_end_of_a_day_makes_no_budget_larger(earlier_gateway: sync_redis.Redis) -> None:
    run_at(earlier_gateway, BEGINNING + 2 * DURATION, "show")
    more = begin_priced(earlier_gateway, "r2")
    settled = {"prompt": 10, "completion": 5, "cached": 10, "reasoning": 0, "outcome": "complete"}
    tomorrow = BEGINNING + 11 * MINUTE
    run_at(earlier_gateway, tomorrow, "settle", **more, **settled)
    limits = {"limits": {"daily_cost": 10}, "prices": PRICES}
    assert int(run_at(earlier_gateway, tomorrow, "show", **limits)["scopes"]["key"]["daily_cost"]) == 0
    rejected = run_at(earlier_gateway, tomorrow, "admit", **more | limits | {"id": "r3"}, estimate=11, output=0)
    assert not rejected["admitted"]
