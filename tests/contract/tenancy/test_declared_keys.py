"""Keys that are declared by their digests, for installations that are described in files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import declared_keys, keys
from services.gateway.tenancy.declared_keys import DeclaredKey
from services.gateway.tenancy.key import NameTakenError
from services.gateway.tenancy.secret import digest, draw
from tests.support.repository import ROOT
from tests.support.valkey import running_valkey

SECRET = draw("s07")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("declared")) as url:
        yield url


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as redis:
        await redis.flushdb()
        yield redis


def declared(**fields: Any) -> list[DeclaredKey]:
    return [DeclaredKey.model_validate({"name": "shop", "digest": digest(SECRET), **fields})]


async def test_a_declared_key_is_created_and_its_secret_is_valid(redis: Redis) -> None:
    ((key, outcome),) = await declared_keys.apply(redis, declared(owner="us", limits={"rpm": 60}))
    assert outcome == "created"
    found = await keys.find(redis, SECRET)
    assert found == key
    assert (key.owner, key.limits.rpm) == ("us", 60)
    assert [listed.name for listed in await keys.list_all(redis)] == ["shop"]


async def test_a_declaration_is_what_the_key_becomes(redis: Redis) -> None:
    await declared_keys.apply(
        redis, declared(tier="free", limits={"rpm": 60, "tpm": 100}, model_limits={"a": {"rpm": 1}})
    )
    ((_, outcome),) = await declared_keys.apply(redis, declared(limits={"rpm": 90}, model_limits={"b": {"rpm": 2}}))
    assert outcome == "changed"
    key = await keys.find(redis, SECRET)
    assert key is not None
    assert (key.tier, key.limits.rpm, key.limits.tpm) == (None, 90, None)
    assert list(key.model_limits) == ["b"]
    ((_, outcome),) = await declared_keys.apply(redis, declared(limits={"rpm": 90}, model_limits={"b": {"rpm": 2}}))
    assert outcome == "unchanged"


async def test_a_revoked_key_does_not_come_back(redis: Redis) -> None:
    await declared_keys.apply(redis, declared())
    await keys.revoke(redis, "shop")
    with pytest.raises(ValueError, match="was revoked"):
        await declared_keys.apply(redis, declared())
    assert await keys.find(redis, SECRET) is None


async def test_a_name_that_another_key_has_is_an_error(redis: Redis) -> None:
    _, secret = await keys.create(redis, name="shop")
    with pytest.raises(NameTakenError):
        await declared_keys.apply(redis, declared())
    assert await keys.find(redis, secret) is not None
    assert await keys.find(redis, SECRET) is None


async def test_a_digest_that_another_declared_key_has_is_an_error(redis: Redis) -> None:
    await declared_keys.apply(redis, declared())
    with pytest.raises(ValueError, match="has the name shop"):
        await declared_keys.apply(redis, declared(name="other"))


async def test_the_command_of_the_chart_draws_and_applies(redis: Redis, url: str, tmp_path: Path) -> None:
    drawn = json.loads(vilix("keys", "draw", "--json").stdout)
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": [{"name": "app", "digest": drawn["digest"], "limits": {"rpm": 5}}]}))
    applied = vilix("keys", "apply", str(file), VILIX_REDIS_URL=url)
    assert applied.returncode == 0, applied.stderr
    assert "(app): created" in applied.stdout
    key = await keys.find(redis, drawn["key"])
    assert key is not None
    assert key.limits.rpm == 5
    assert "(app): unchanged" in vilix("keys", "apply", str(file), VILIX_REDIS_URL=url).stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keys": [{"name": "a"}]}, "digest"),
        ({"keys": [{"name": "a", "digest": "0" * 64, "rpm": 5}]}, "rpm"),
        ({"keys": [{"name": "a", "digest": "0" * 64}, {"name": "a", "digest": "1" * 64}]}, "the name a"),
        ({"keys": [{"name": "a", "digest": "0" * 64}, {"name": "b", "digest": "0" * 64}]}, "the digest"),
    ],
)
def test_a_wrong_file_is_rejected_before_anything_is_changed(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(json.dumps(content))
    result = vilix("keys", "apply", str(tmp_path / "keys.yaml"), VILIX_REDIS_URL="redis://127.0.0.1:1/0")
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def vilix(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from services.cli.main import main; main()", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
