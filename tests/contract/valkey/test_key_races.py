"""Concurrent creation, change, rotation and revocation of keys on a real Valkey."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from services.gateway.redis.script import Script
from services.gateway.tenancy import key_scripts, keys
from services.gateway.tenancy.key import Change, ExpiredError, Key, NameTakenError, RevokedError
from services.gateway.tenancy.key_records import record_name
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.secret import digest, shard_of
from services.runtime.messages.message import Message

NAMES = ("shop", "web")


class _DiedError(Exception):
    """Simulates the death of an operation's process."""


def _rarely_dying(chance: random.Random) -> Callable[..., Awaitable[Any]]:
    """Return a function that runs scripts after a pause, and sometimes dies before or after one."""
    run = Script.run

    async def run_or_die(script: Script, redis: Redis, key: str, *arguments: str) -> Any:
        if chance.random() < 0.05:
            raise _DiedError
        await asyncio.sleep(chance.random() * 0.002)
        response = await run(script, redis, key, *arguments)
        if chance.random() < 0.05:
            raise _DiedError
        return response

    return run_or_die


@pytest.mark.parametrize("seed", range(12))
async def test_after_all_races_only_listed_keys_authenticate_and_revoked_ones_never(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    every_id = await _ids(redis)
    run_or_die = _rarely_dying(chance)
    monkeypatch.setattr(Script, "run", run_or_die)
    secrets: dict[str, set[str]] = {}
    revoked: set[str] = set()

    async def create(name: str) -> None:
        key, secret = await keys.create(redis, name=name)
        secrets.setdefault(key.id, set()).add(secret)

    async def rotate(name: str) -> None:
        key, secret = await keys.rotate(redis, name, grace_seconds=0)
        secrets.setdefault(key.id, set()).add(secret)

    async def change(name: str) -> None:
        expires = chance.choice([None, int(time.time()) + 3600])
        await keys.change(redis, name, Change(limits=Limits(rpm=chance.randrange(1, 9)), expires=expires))

    async def revoke(name: str) -> None:
        key, _ = await keys.revoke(redis, name)
        revoked.add(key.id)

    async def work(operations: list[tuple[Callable[[str], Awaitable[None]], str]]) -> None:
        for operation, name in operations:
            try:
                await operation(name)
            except (NameTakenError, RevokedError, LookupError, _DiedError):
                continue

    kinds = [create, create, rotate, change, revoke]
    drawn: list[tuple[Callable[[str], Awaitable[None]], str]] = []
    for _ in range(240):
        kind = chance.choice(kinds)
        drawn.append((kind, chance.choice(NAMES if kind is create else (*NAMES, *every_id))))
    await asyncio.gather(*(work(drawn[first::12]) for first in range(12)))
    monkeypatch.undo()

    listed = {key.id: key for key in await keys.list_all(redis)}
    assert len({key.name for key in listed.values()}) == len(listed)
    for key_id, known in secrets.items():
        valid = [secret for secret in known if (await keys.find(redis, secret)) is not None]
        assert not (valid and key_id in revoked), "a revoked key is valid"
        assert not (valid and key_id not in listed), "a key is valid and on no list"
        assert len(valid) <= 1, "a key that is rotated without grace has one secret"
        if key_id in revoked:
            with pytest.raises(RevokedError):
                await keys.rotate(redis, key_id)
            with pytest.raises(RevokedError):
                await keys.change(redis, key_id, Change(owner="x"))
    for key_id in listed:
        digests = await redis.hgetall(f"vilix:{{{shard_of(digest(key_id))}}}:secrets:{key_id}")
        assert list(digests.values()).count("0") == 1, "one secret has no expiry of its own"
    for name in NAMES:
        # Whatever a dead process has left behind: the name can be used again.
        if name in {key.name for key in listed.values()}:
            await keys.revoke(redis, name)
        await _expire_pending(redis)
        key, secret = await keys.create(redis, name=name)
        assert (await keys.find(redis, secret)) == key
        assert key in await keys.list_all(redis)


async def test_a_rotation_that_races_with_a_revocation_leaves_nothing_valid(redis: Redis) -> None:
    for _ in range(60):
        key, secret = await keys.create(redis, name="shop")
        rotations = (keys.rotate(redis, key.id) for _ in range(3))
        *rotated, _ = await asyncio.gather(*rotations, keys.revoke(redis, key.id), return_exceptions=True)
        made = [result[1] for result in rotated if not isinstance(result, BaseException)]
        assert all(isinstance(result, RevokedError | tuple) for result in rotated)
        assert [await keys.find(redis, each) for each in (secret, *made)] == [None] * (1 + len(made))


async def test_concurrent_changes_of_different_limits_all_apply(redis: Redis) -> None:
    await keys.create(redis, name="shop")
    models = [f"m{number}" for number in range(20)]
    await asyncio.gather(*(keys.change(redis, "shop", Change(model_limits={model: Limits(rpm=1)})) for model in models))
    assert sorted((await keys.get(redis, "shop")).model_limits) == sorted(models)


async def test_a_revoked_key_is_shown_by_its_id_and_neither_rotated_nor_changed(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop", limits=Limits(rpm=5))
    await keys.revoke(redis, "shop")
    shown = await keys.get(redis, key.id)
    assert shown.revoked is not None
    assert abs(shown.revoked - time.time()) < 60
    for attempt in (keys.rotate(redis, key.id), keys.change(redis, key.id, Change(owner="x"))):
        with pytest.raises(RevokedError) as revoked:
            await attempt
        assert revoked.value.args[0].id == "key_revoked"
    assert await keys.find(redis, secret) is None
    with pytest.raises(LookupError):
        await keys.get(redis, "shop")
    await keys.revoke(redis, key.id)
    assert await redis.ttl(record_name(key.id)) > 0


async def test_a_key_that_an_earlier_version_revoked_stays_revoked(redis: Redis) -> None:
    key, secret = await keys.create(redis, name="shop")
    # Earlier versions left a record that expires, without a mark. A rotation then made the key valid again.
    await redis.hdel(keys.NAMES, "shop")
    await redis.expire(record_name(key.id), keys.REVOKED_SECONDS)
    assert await keys.find(redis, secret) is None
    with pytest.raises(RevokedError):
        await keys.rotate(redis, key.id)
    assert (await keys.get(redis, key.id)).revoked is not None


@pytest.mark.parametrize("name", ["key_0123456789Ab", "a/b", "/", ".", "..", "vlx_"])
async def test_a_name_that_looks_like_an_id_or_breaks_a_path_is_rejected(redis: Redis, name: str) -> None:
    if name == "vlx_":
        _, name = await keys.create(redis, name="other")
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its message is compared
        await keys.create(redis, name=name)
    assert caught.value.args[0].id in ("key_name_is_secret", "key_name_like_id", "key_name_not_for_urls")
    assert not (name.startswith("vlx_") and name in str(caught.value)), "a secret is not repeated"


@pytest.mark.parametrize(
    "name", [" shop", "shop\n", "\u00a0shop", "a\tb", "a\u202eb", "a\u200bb", "a\ufeffb", "a\x00b"]
)
async def test_a_name_with_invisible_characters_is_rejected(redis: Redis, name: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its message is compared
        await keys.create(redis, name=name)
    assert caught.value.args[0].id == "key_name_with_spaces"
    assert str(caught.value).isascii(), "the message escapes invisible characters"


async def test_a_persian_name_may_have_joiners(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="فروشگاه می\u200cخرد")
    assert (await keys.get(redis, "فروشگاه می\u200cخرد")).id == key.id


async def test_an_expired_key_is_not_rotated(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="short", expires=int(time.time()) + 1000)
    await redis.hset(record_name(key.id), "expires", str(int(time.time()) - 1))
    with pytest.raises(ExpiredError) as expired:
        await keys.rotate(redis, key.id)
    assert expired.value.args[0] == Message("key_expired", key=key.id, name="short")
    await keys.change(redis, key.id, Change(expires=int(time.time()) + 1000))
    _, secret = await keys.rotate(redis, key.id)
    assert await keys.find(redis, secret) is not None


async def test_an_id_takes_precedence_over_an_equal_name(redis: Redis) -> None:
    victim, secret = await keys.create(redis, name="victim")
    namesake, other = await keys.create(redis, name="other")
    await redis.hset(record_name(namesake.id), "name", victim.id)
    await redis.hdel(keys.NAMES, "other")
    await redis.hset(keys.NAMES, victim.id, namesake.id)
    revoked, _ = await keys.revoke(redis, victim.id)
    assert revoked.id == victim.id
    assert await keys.find(redis, secret) is None
    assert (await keys.find(redis, other)) is not None
    assert (await keys.get(redis, namesake.id)).name == victim.id


async def test_the_name_of_an_interrupted_creation_is_free_after_a_minute(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(script: Script, *arguments: Any) -> Any:
        if script is key_scripts.ACTIVATE:
            raise RedisConnectionError
        return await run(script, *arguments)

    run = Script.run
    monkeypatch.setattr(Script, "run", dies)
    with pytest.raises(RedisConnectionError):
        await keys.create(redis, name="shop")
    monkeypatch.undo()
    assert await keys.list_all(redis) == []
    with pytest.raises(NameTakenError):
        await keys.create(redis, name="shop")
    with pytest.raises(LookupError):
        await keys.revoke(redis, "shop")
    await _expire_pending(redis)
    key, _ = await keys.create(redis, name="shop")
    assert [each.id for each in await keys.list_all(redis)] == [key.id]


async def test_a_creation_that_takes_too_long_creates_no_key(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(script: Script, *arguments: Any) -> Any:
        if script is key_scripts.ACTIVATE:
            await _expire_pending(redis)
        return await run(script, *arguments)

    run = Script.run
    monkeypatch.setattr(Script, "run", slow)
    with pytest.raises(TimeoutError):
        await keys.create(redis, name="shop")
    monkeypatch.undo()
    assert await redis.keys("*") == []


async def _ids(redis: Redis) -> list[str]:
    made: list[Key] = [(await keys.create(redis, name=f"first-{number}"))[0] for number in range(2)]
    return [key.id for key in made]


async def _expire_pending(redis: Redis) -> None:
    """Expire pending records, as if a minute had passed."""
    for name in await redis.keys("vilix:*:key:*"):
        if await redis.hexists(name, "pending"):
            await redis.delete(name)
