from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.key import NameTakenError
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.secret import digest, draw, is_well_formed, shard_of
from services.runtime.messages.message import Message


async def test_a_key_is_found_by_its_secret_until_it_is_revoked(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop", limits=Limits(rpm=5))
    assert await keys.find(redis, secret) == key
    assert (key.name, key.limits.rpm) == ("shop", 5)
    await keys.revoke(redis, "shop")
    assert await keys.find(redis, secret) is None
    assert await keys.list_all(redis) == []


async def test_a_key_can_be_revoked_by_its_id(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop")
    assert (await keys.revoke(redis, key.id))[0] == key
    assert await keys.find(redis, secret) is None


async def test_names_are_unique_and_unknown_ones_are_reported(redis: Redis) -> None:
    await keys.create(redis, name="shop")
    with pytest.raises(NameTakenError) as taken:
        await keys.create(redis, name="shop")
    assert taken.value.args[0] == Message("key_name_taken", field="name", name="'shop'")
    with pytest.raises(LookupError) as unknown:
        await keys.revoke(redis, "nobody")
    assert unknown.value.args[0] == Message("key_not_found", name="'nobody'")


async def test_only_the_hash_of_a_secret_is_stored(redis: Redis) -> None:
    _, secret = await keys.create(redis, name="shop")
    everything = list(await redis.keys("*"))
    contents = [await redis.dump(name) for name in everything]
    assert secret[4:34] not in str(everything) + str(contents)


async def test_all_data_of_a_key_are_in_one_shard(redis: Redis) -> None:
    for number in range(20):
        key, secret = await keys.create(redis, name=f"k{number}")
        names = [name for name in await redis.keys("vilix:{*") if key.id in name]
        assert len(names) == 2
        assert all(f"{{{key.shard}}}" in name for name in [*names, f"vilix:{{{shard_of(digest(secret))}}}"])
        assert (await keys.find(redis, secret)) is not None


@given(position=st.integers(4, 39), replacement=st.sampled_from("0123456789ABCXYZabcxyz"))
def test_a_mistyped_key_is_recognised(position: int, replacement: str) -> None:
    secret = draw("s07")
    assert is_well_formed(secret)
    mistyped = secret[:position] + replacement + secret[position + 1 :]
    assert is_well_formed(mistyped) == (mistyped == secret)


@pytest.mark.parametrize("text", ["", "vlx_", "vlx_short", "sk-proj-abc", "vlx_" + "é" * 36, "VLX_" + "0" * 36])
async def test_a_malformed_key_is_never_looked_up(redis: Redis, text: str) -> None:
    assert await keys.find(redis, text) is None


async def test_a_saved_key_is_kept_while_it_is_valid_and_replaced_otherwise(redis: Redis) -> None:
    first = await keys.ensure(redis, name="development", saved="")
    assert await keys.ensure(redis, name="development", saved=first) == first
    await keys.revoke(redis, "development")
    second = await keys.ensure(redis, name="development", saved=first)
    assert second != first
    third = await keys.ensure(redis, name="development", saved="lost")
    assert await keys.find(redis, second) is None
    assert await keys.find(redis, third) is not None
