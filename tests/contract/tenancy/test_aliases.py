"""Aliases: requests to them count their model, in every API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import Limits
from tests.contract.tenancy.conftest import ADMIN_TOKEN, URL, body, client_of, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.generating_apis import APIS
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]


@pytest.fixture
async def admin(gateways: list[str], admin_port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(f"http://127.0.0.1:{admin_port}", ADMIN_TOKEN) as client:
        yield client


async def test_an_alias_counts_its_model_in_every_api(
    gateways: list[str], admin: httpx.AsyncClient, worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key(models=frozenset({"small"}), model_limits={"small": Limits(rpm=len(APIS))})
    for alias, model in (("claude-small", "small"), ("gpt-4o-mini", "large")):
        assert (await admin.put(f"/admin/v1/aliases/{alias}", json={"model": model})).status_code == 200
    async with client_of(gateways[1], secret) as client:

        async def listed() -> dict[str, Any]:
            models = (await client.get("/api/models")).json()["data"]
            return {model["id"]: model.get("alias_of") for model in models}

        async def is_known() -> bool:
            return "claude-small" in await listed()

        await until(is_known)
        assert await listed() == {"small": None, "claude-small": "small"}, "without those of models it may not use"
        assert (await client.get("/api/models/claude-small")).json()["alias_of"] == "small"
        for api in APIS:
            response = await client.post(f"/api{api.path}", json=api.body("hello", "claude-small", tokens=3))
            assert response.json()["model"] == "small"
        limited = await client.post(URL, json=body(3, model="claude-small"))
        assert limited.status_code == 429
        forbidden = await client.post(URL, json=body(3, model="gpt-4o-mini"))
        assert (forbidden.status_code, message_id_of(forbidden)) == (403, "model_not_allowed")
        deleted = await admin.delete("/admin/v1/aliases/claude-small")
        assert deleted.json() == {"gpt-4o-mini": "large"}

        async def is_gone() -> bool:
            return "claude-small" not in await listed()

        await until(is_gone)
    assert (await used(redis, key)).completion_tokens == 3 * len(APIS)
    assert (await admin.delete("/admin/v1/aliases/claude-small")).status_code == 404
    await admin.delete("/admin/v1/aliases/gpt-4o-mini")


@pytest.mark.parametrize(
    ("alias", "model", "message_id"),
    [
        ("has a space", "small", "alias_not_valid"),
        ("loop", "loop", "alias_of_alias"),
        ("chain", "configured", "alias_of_alias"),
    ],
)
async def test_an_alias_that_is_not_valid_is_rejected(
    admin: httpx.AsyncClient, alias: str, model: str, message_id: str
) -> None:
    rejected = await admin.put(f"/admin/v1/aliases/{alias}", json={"model": model})
    assert (rejected.status_code, message_id_of(rejected)) == (400, message_id)
    assert (await admin.get("/admin/v1/aliases")).json() == {}
