"""Records of keys that other versions of Vilix wrote."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from services.gateway.credential import BEARER, Credential
from services.gateway.errors import ApiError
from services.gateway.redis.link import RedisLink
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change
from services.gateway.tenancy.key_cache import KeyCache
from services.gateway.tenancy.key_records import MONEY_VERSION, VERSION, NewerRecordError, fields_of, record_name
from services.gateway.tenancy.limits import COSTS, UNLIMITED, Limits
from services.runtime.messages.message import Message

SINCE_VERSION_1 = ("version", "tier", "models", "model_limits", *Limits.model_fields)
"""Fields that records of version 0 may lack."""


async def key_of_version_0(redis: Redis) -> tuple[str, str]:
    """Create a key whose record has the form of version 0. Returns its id and its secret."""
    key, secret = await keys.create(redis, name="shop")
    await redis.hdel(record_name(key.id), *SINCE_VERSION_1)
    return key.id, secret


async def test_new_records_have_the_present_version(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop")
    assert await redis.hget(record_name(key.id), "version") == str(VERSION)


async def test_a_key_of_version_0_is_valid_and_unlimited(redis: Redis) -> None:
    key_id, secret = await key_of_version_0(redis)
    key = await keys.find(redis, secret)
    assert key is not None
    assert (key.id, key.limits, key.models) == (key_id, UNLIMITED, None)


async def test_migration_rewrites_old_records_once_and_keys_stay_valid(redis: Redis) -> None:
    key_id, secret = await key_of_version_0(redis)
    await keys.create(redis, name="new")
    migration = await keys.migrate(redis)
    assert (migration.rewritten, migration.keys) == (1, 2)
    record = await redis.hgetall(record_name(key_id))
    key = await keys.find(redis, secret)
    assert key is not None
    assert record == fields_of(key)
    assert (await keys.migrate(redis)).rewritten == 0


async def test_a_change_rewrites_an_old_record(redis: Redis) -> None:
    key_id, _ = await key_of_version_0(redis)
    await keys.change(redis, "shop", Change(limits=Limits(rpm=5)))
    record = await redis.hgetall(record_name(key_id))
    assert (record["version"], record["rpm"], record["tier"]) == (str(VERSION), "5", "")


async def test_a_revoked_key_of_version_0_stays_revoked(redis: Redis) -> None:
    key_id, secret = await key_of_version_0(redis)
    await keys.revoke(redis, key_id)
    await keys.migrate(redis)
    assert await keys.find(redis, secret) is None
    assert (await keys.get(redis, key_id)).revoked is not None


async def test_a_record_of_a_newer_version_is_not_interpreted(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop")
    await redis.hset(record_name(key.id), "version", str(MONEY_VERSION + 1))
    with pytest.raises(NewerRecordError) as newer:
        await keys.get(redis, key.id)
    assert newer.value.args[0] == Message("key_record_newer", key=key.id, value=MONEY_VERSION + 1, limit=MONEY_VERSION)
    with pytest.raises(NewerRecordError):
        await keys.migrate(redis)
    cache = KeyCache(RedisLink(redis, timeout=5.0), grace_seconds=60)
    with pytest.raises(ApiError) as rejected:
        await cache.find(Credential(secret, BEARER))
    assert rejected.value.status == 503


async def test_a_key_with_a_budget_in_money_has_a_version_that_earlier_gateways_reject(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop", model_limits={"small": Limits(weekly_cost=5)})
    assert await redis.hget(record_name(key.id), "version") == str(MONEY_VERSION)
    found = await keys.find(redis, secret)
    assert found is not None
    assert found.model_limits == {"small": Limits(weekly_cost=5)}
    await keys.change(redis, "shop", Change(model_limits={"small": Limits()}))
    assert await redis.hget(record_name(key.id), "version") == str(VERSION)


async def test_a_record_without_the_fields_of_budgets_in_money_is_read(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop", limits=Limits(rpm=5))
    await redis.hdel(record_name(key.id), *COSTS)
    assert await keys.find(redis, secret) == key
