"""Prices and budgets in money: exact to the smallest unit, in parallel, over gateways that die, and in all reports."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from services.gateway.redis import audit_log
from services.gateway.tenancy import limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import UNLIMITED
from services.gateway.tenancy.limits_script import Scope, Subject
from services.gateway.tenancy.prices import ModelPrice, read_prices
from tests.contract.tenancy.conftest import RENEW_SECONDS, RESERVATION_SECONDS, URL, body, client_of, records
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.gateway import running_gateway, until_ready
from tests.support.generating_apis import APIS
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]
FILE: Final = """
currency: USD
decimals: 6
models:
  small: {prompt: 1_500_000, cached: 200_000, completion: 7_300_000}
"""
"""A token of a prompt costs 1.5 units, a cached one 0.2, and a generated one 7.3. The model `large` costs nothing."""


@pytest.fixture(scope="module")
def prices_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "prices.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
async def priced(
    redis_url: str,
    shared_worker: CountingWorker,
    settings: dict[str, str],
    prices_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Two gateways with prices, each with its process. Tests may kill the second one."""
    logs = tmp_path_factory.mktemp("priced")
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                running_gateway(
                    redis_url,
                    shared_worker.address,
                    logs / f"{number}.log",
                    **settings,
                    VILIX_PRICES=str(prices_file),
                )
            )
            for number in range(2)
        ]
        for url, _ in started:
            await until_ready(url)
        yield started


@pytest.fixture(scope="module")
def price(prices_file: Path) -> ModelPrice:
    return read_prices(prices_file).models["small"]


async def scope_of(redis: Redis, key: Key, price: ModelPrice) -> Scope:
    """Return the state of the key's limits, by which expired reservations end."""
    subject = Subject(key, "small", key.limits, UNLIMITED, price=price)
    return (await limits_script.show(redis, subject)).scopes["key"]


async def is_idle(redis: Redis, key: Key, price: ModelPrice) -> bool:
    scope = await scope_of(redis, key, price)
    return scope.slots == scope.reserved == scope.reserved_cost == 0


def cost_of_bill(price: ModelPrice, bill: dict[str, str]) -> int:
    produced = limits_script.Produced(
        int(bill["prompt_tokens"]), int(bill["completion_tokens"]), int(bill["cached_tokens"])
    )
    return price.cost(produced)


async def test_receipts_records_and_usage_add_up_to_the_smallest_unit(
    priced: list[Any], worker: CountingWorker, new_key: NewKey, redis: Redis, price: ModelPrice
) -> None:
    key, secret = await new_key()
    urls = [url for url, _ in priced]
    async with client_of(urls[0], secret) as client, client_of(urls[1], secret) as another:
        posts = [
            (client, another)[number % 2].post(
                f"/api{api.path}", json=api.body("x" * number, model, tokens=2 * number, stream=number % 3 == 0)
            )
            for number in range(1, 8)
            for api in APIS
            for model in ("small", "large")
        ]
        ids = [response.headers["x-request-id"] for response in await asyncio.gather(*posts)]
        await until(lambda: is_idle(redis, key, price))
        receipts = [(await client.get(f"/api/requests/{request_id}")).json() for request_id in ids]
        usage = (await another.get("/api/usage")).json()
    bills = await records(redis, key)
    priced_bills = [bill for bill in bills if "cost" in bill]
    assert {bill["model"] for bill in priced_bills} == {"small"}
    for bill in priced_bills:
        assert int(bill["cost"]) == cost_of_bill(price, bill)
    total = sum(int(bill["cost"]) for bill in priced_bills)
    assert total == sum(receipt.get("cost", 0) for receipt in receipts) > 0
    assert usage["today"]["cost"] == usage["month"]["cost"] == usage["week"]["cost"] == total
    assert usage["today"]["models"]["small"]["cost"] == total
    assert usage["today"]["models"]["large"]["cost"] == 0
    assert (usage["currency"], usage["decimals"], usage["reserved_cost"]) == ("USD", 6, 0)
    (some,) = {(receipt["currency"], receipt["decimals"]) for receipt in receipts if "cost" in receipt}
    assert some == ("USD", 6)
    assert await limits_script_spent(redis, key) == total


async def limits_script_spent(redis: Redis, key: Key) -> int:
    """Return what the counter says that is not of a model."""
    names = [name async for name in redis.scan_iter(f"vilix:*:usage:{key.id}:????-??")]
    return sum([int(await redis.hget(name, "spent") or 0) for name in names])


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
async def test_parallel_requests_never_exceed_a_budget(
    priced: list[Any], worker: CountingWorker, new_key: NewKey, redis: Redis, price: ModelPrice, *, period: str
) -> None:
    key, secret = await new_key(limits={f"{period}_cost": 1000})
    async with client_of(priced[0][0], secret) as client, client_of(priced[1][0], secret) as another:
        responses = await asyncio.gather(
            *((client, another)[number % 2].post(URL, json=body(5)) for number in range(60))
        )
        rejected = [response for response in responses if response.status_code == 429]
        assert {message_id_of(response) for response in rejected} == {f"{period}_money_exceeded"}
        error = rejected[0].json()["error"]
        assert (error["code"], rejected[0].headers["x-should-retry"]) == ("insufficient_quota", "false")
        assert "budget of 0.001000 USD" in error["message"]
        while (await client.post(URL, json=body(5))).status_code == 200:
            pass
        await until(lambda: is_idle(redis, key, price))
        left = (await client.get("/api/usage")).json()["remaining"][f"{period}_cost"]
        assert (await client.post(URL, json=body(5, model="large"))).status_code == 200, "a free model goes on"
    spent = getattr(await scope_of(redis, key, price), f"{period}_cost")
    # The estimate of the prompt, "hello", is at least its five tokens, and five generated ones cost 36.5 units.
    assert 900 < spent <= 1000
    assert left == 1000 - spent
    assert spent == sum(cost_of_bill(price, bill) for bill in await records(redis, key) if bill["model"] == "small")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_budget_ends_a_generation_which_is_billed_exactly(
    priced: list[Any], worker: CountingWorker, new_key: NewKey, redis: Redis, price: ModelPrice, *, stream: bool
) -> None:
    worker.pace = 0.005
    key, secret = await new_key(model_limits={"small": {"weekly_cost": 500}})
    async with client_of(priced[0][0], secret) as client:
        response = await client.post(URL, json=body(300, stream=stream))
        assert '"vilix":{"ended_by":"weekly_cost","scope":"model"}' in response.text
        await until(lambda: is_idle(redis, key, price))
        rejected = await client.post(URL, json=body(300))
        assert (rejected.status_code, message_id_of(rejected)) == (429, "weekly_money_of_model_exceeded")
    (bill,) = await records(redis, key)
    assert bill["outcome"] == "budget"
    assert int(bill["cost"]) == cost_of_bill(price, bill)
    # Ten tokens may be in flight when Redis reports that the budget is spent.
    assert 427 <= int(bill["cost"]) <= 573


async def test_a_changed_file_applies_from_the_next_request_and_is_in_the_audit_log(
    priced: list[Any], worker: CountingWorker, new_key: NewKey, redis: Redis, prices_file: Path
) -> None:
    _, secret = await new_key()

    async def entries() -> list[audit_log.AuditEntry]:
        return await audit_log.read(redis, since=0, until=2**33, subject="prices", limit=10)

    async def cost() -> Any:
        async with client_of(priced[0][0], secret) as client:
            request_id = (await client.post(URL, json=body(10))).headers["x-request-id"]
            return (await client.get(f"/api/requests/{request_id}")).json()["cost"]

    async def costs(amount: int) -> bool:
        return bool(await cost() == amount)

    first = await cost()
    changed = prices_file.with_suffix(".new")
    changed.write_text(FILE.replace("7_300_000", "8_300_000"))
    try:
        changed.replace(prices_file)
        await until(lambda: costs(first + 10))
        assert len(await entries()) == 2, "one for each change, not for each gateway"
        latest, oldest = await entries()
        assert oldest.before is None
        assert (latest.before["models"]["small"]["completion"], latest.after["currency"]) == (7_300_000, "USD")
        assert latest.after["models"]["small"] == {"prompt": 1_500_000, "cached": 200_000, "completion": 8_300_000}
    finally:
        changed.write_text(FILE)
        changed.replace(prices_file)
        await until(lambda: costs(first))


async def test_a_killed_gateway_leaves_what_was_produced_and_frees_the_rest(
    priced: list[Any], worker: CountingWorker, new_key: NewKey, redis: Redis, price: ModelPrice
) -> None:
    worker.pace = 0.02
    key, secret = await new_key(limits={"daily_cost": 100_000})
    url, process = priced[1]
    async with client_of(url, secret) as client:
        asking = asyncio.create_task(client.post(URL, json=body(5000), headers={"x-request-id": "dies"}))

        async def is_charged() -> bool:
            return (await scope_of(redis, key, price)).daily_cost > 100

        await until(is_charged)
        process.kill()
        await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: is_idle(redis, key, price), seconds=20 * (RESERVATION_SECONDS + RENEW_SECONDS))
    (bill,) = await records(redis, key)
    assert bill["outcome"] == "lost"
    spent = (await scope_of(redis, key, price)).daily_cost
    assert spent == int(bill["cost"]) == cost_of_bill(price, bill) > 100
    async with client_of(priced[0][0], secret) as client:
        receipt = (await client.get("/api/requests/dies")).json()
    assert (receipt["outcome"], receipt["cost"]) == ("lost", spent)
    assert receipt["usage"]["completion_tokens"] == int(bill["completion_tokens"])
