"""The audit log in a real Valkey: each change has one entry, which names the caller and no secret."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from services.gateway.redis import audit_log
from services.gateway.redis.audit_log import AuditEntry, Origin, changes_from
from services.gateway.routing import aliases
from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change, NameTakenError
from services.gateway.tenancy.key_transfer import export_all, import_key
from services.gateway.tenancy.limits import Limits


async def entries(redis: Redis, subject: str | None = None, **fields: Any) -> list[AuditEntry]:
    times = {"since": 0.0, "until": time.time() + 60, "limit": 1000}
    return await audit_log.read(redis, subject=subject, **{**times, **fields})


async def test_each_change_of_a_key_has_an_entry_with_the_caller_and_the_changed_fields(redis: Redis) -> None:
    with changes_from(Origin("admin API: Sara", "10.0.0.9")):
        key, secret = await keys.create(redis, name="shop", models=frozenset({"b", "a"}), limits=Limits(rpm=5))
    await keys.change(redis, "shop", Change(limits=Limits(rpm=7, tpm=100)))
    _, second = await keys.rotate(redis, "shop", grace_seconds=60)
    await keys.revoke(redis, "shop")
    revoked, rotated, changed, created = await entries(redis)
    assert (created.actor, created.address) == ("admin API: Sara", "10.0.0.9")
    assert created.after == {"models": ["a", "b"], "limits": {"rpm": 5}}
    assert (created.action, created.before) == ("key.created", None)
    assert (changed.action, changed.before) == ("key.changed", {"limits": {"rpm": 5}})
    assert changed.after == {"limits": {"rpm": 7, "tpm": 100}}
    assert changed.actor.startswith("user ")
    assert (rotated.action, rotated.after) == ("key.rotated", {"grace_seconds": 60})
    assert (revoked.action, revoked.after) == ("key.revoked", None)
    assert {(entry.subject, entry.name) for entry in (revoked, rotated, changed, created)} == {(key.id, "shop")}
    assert abs(created.time - time.time()) < 60
    text = str([entry.model_dump() for entry in await entries(redis)])
    assert secret not in text
    assert second not in text


async def test_what_changes_nothing_has_no_entry(redis: Redis) -> None:
    key, _ = await keys.create(redis, name="shop", limits=Limits(rpm=5))
    await keys.change(redis, "shop", Change(limits=Limits(rpm=5)))
    await keys.revoke(redis, "shop")
    await keys.revoke(redis, key.id)
    await keys.create(redis, name="other")
    with pytest.raises(NameTakenError):
        await keys.create(redis, name="other")
    await keys.migrate(redis)
    assert [entry.action for entry in await entries(redis)] == ["key.created", "key.revoked", "key.created"]


async def test_an_imported_key_has_an_entry(redis: Redis) -> None:
    await keys.create(redis, name="shop", owner="team")
    (exported,) = (await export_all(redis)).keys
    await redis.flushall()
    await import_key(redis, exported)
    assert [(entry.action, entry.after) for entry in await entries(redis)] == [("key.imported", {"owner": "team"})]


async def test_changes_of_aliases_have_entries(redis: Redis) -> None:
    # The word with which scripts mark the place of the value before is an alias like any other.
    for model in ("one", "one", "two"):
        await aliases.save(redis, "BEFORE", model, configured={})
    assert await aliases.delete(redis, "BEFORE")
    assert not await aliases.delete(redis, "BEFORE")
    assert [(entry.action, entry.before, entry.after) for entry in await entries(redis, "BEFORE")] == [
        ("alias.deleted", "two", None),
        ("alias.set", "one", "two"),
        ("alias.set", None, "one"),
    ]


async def test_tiers_that_several_gateways_read_have_one_entry(redis: Redis) -> None:
    for _ in range(3):
        await audit_log.note_tiers(redis, {"free": {"rpm": 5}})
    await audit_log.note_tiers(redis, {"free": {"rpm": 6}})
    changed, first = await entries(redis, "tiers")
    assert (first.before, first.after) == (None, {"free": {"rpm": 5}})
    assert (changed.before, changed.after) == ({"free": {"rpm": 5}}, {"free": {"rpm": 6}})


async def test_entries_are_found_by_time_and_subject_over_several_pages(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_PAGE", 3)
    names = ["shop", "other"] * 5
    made = [(await keys.create(redis, name=f"{name}{number}"))[0] for number, name in enumerate(names)]
    for number in range(10):
        await keys.change(redis, "shop0", Change(limits=Limits(rpm=number + 1)))
    assert len(await entries(redis)) == 20
    of_shop = await entries(redis, "shop0")
    assert [entry.action for entry in of_shop] == ["key.changed"] * 10 + ["key.created"]
    assert of_shop == await entries(redis, made[0].id)
    assert [entry.after for entry in await entries(redis, made[0].id, limit=2)] == [
        {"limits": {"rpm": 10}},
        {"limits": {"rpm": 9}},
    ]
    middle = of_shop[5].time
    assert {entry.time for entry in await entries(redis, since=middle)} == {
        entry.time for entry in await entries(redis) if entry.time >= middle
    }
    assert await entries(redis, until=of_shop[-1].time - 1) == []


async def test_old_entries_are_removed(redis: Redis) -> None:
    await aliases.save(redis, "fast", "one", configured={})
    (stream,) = await redis.keys("*audit*")
    old = int((time.time() - audit_log.RETENTION_SECONDS - 60) * 1000)
    await redis.delete(stream)
    async with redis.pipeline() as pipeline:
        for number in range(300):
            pipeline.xadd(stream, {"entry": json.dumps({"action": "old"})}, id=f"{old + number}")
        await pipeline.execute()
    await aliases.save(redis, "fast", "two", configured={})
    # Redis removes whole nodes of a stream, of 100 entries each.
    assert await redis.xlen(stream) <= 100
