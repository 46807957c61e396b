"""`vilix keys` on a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from typer.testing import CliRunner, Result

from services.cli.main import app
from tests.support.valkey import running_valkey

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(autouse=True)
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VILIX_REDIS_URL", url)
    with sync_redis.Redis.from_url(url) as client:
        client.flushall()


def vilix(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["keys", *arguments])


def record_of(name: str) -> dict[str, Any]:
    result = vilix("show", name)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_every_field_of_a_key_can_be_set_shown_and_changed() -> None:
    options = ("--owner", "team", "--models", "small, large", "--rpm", "60", "--tpm", "1000", "--concurrency", "5")
    budgets = ("--daily-tokens", "5000", "--monthly-tokens", "90000", "--expires", "2099-01-31", "--tier", "free")
    made = vilix("create", "--name", "shop", *options, *budgets, "--model-limit", "large:rpm=5,concurrency=1")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.startswith("vlx_")
    limits = {"rpm": 60, "tpm": 1000, "concurrency": 5, "daily_tokens": 5000, "monthly_tokens": 90000}
    key = record_of("shop")
    assert key["limits"] == limits
    assert (key["owner"], key["models"], key["tier"]) == ("team", ["large", "small"], "free")
    assert key["expires"] == 4_073_500_800
    assert key["model_limits"]["large"]["rpm"] == 5
    changed = vilix("set", "shop", "--rpm", "7", "--tpm", "none", "--models", "none", "--model-limit", "large:none")
    assert changed.exit_code == 0, changed.stderr
    key = record_of("shop")
    assert key["limits"] == {**limits, "rpm": 7, "tpm": None}
    assert (key["models"], key["model_limits"], key["owner"]) == (None, {}, "team")


def test_a_rotated_key_is_printed_once() -> None:
    first = json.loads(vilix("create", "--name", "shop", "--json").stdout)
    second = vilix("rotate", "shop", "--grace", "1h")
    assert second.stdout.startswith("vlx_")
    assert second.stdout.strip() != first["key"]
    assert "expires in 1h" in second.stderr
    assert "vlx_" not in vilix("list", "--json").stdout + json.dumps(record_of("shop"))


def test_usage_is_shown_by_model_and_by_day(url: str) -> None:
    key = json.loads(vilix("create", "--name", "shop", "--json").stdout)
    with sync_redis.Redis.from_url(url, decode_responses=True) as client:
        (record,) = client.keys(f"vilix:*:key:{key['id']}")  # type: ignore[misc]  # it is no coroutine
        shard = record.split(":key:")[0]
        seconds = client.time()[0]  # type: ignore[index]  # as above
        today = datetime.fromtimestamp(seconds, UTC).date().isoformat()
        counters = {"requests:a:b": 2, "prompt:a:b": 30, "completion:a:b": 12, "tokens": 42, "requests:c": 1}
        client.hset(f"{shard}:usage:{key['id']}:{today}", mapping=counters)
    assert json.loads(vilix("usage", "shop", "--by", "model", "--json").stdout) == [
        {"model": "a:b", "requests": 2, "prompt_tokens": 30, "completion_tokens": 12, "cached_tokens": 0}
        | {"reasoning_tokens": 0},
        {"model": "c", "requests": 1, "prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
        | {"reasoning_tokens": 0},
    ]
    by_day = json.loads(vilix("usage", "shop", "--json").stdout)
    assert [(row["day"], row["requests"], row["prompt_tokens"]) for row in by_day] == [(today, 3, 30)]


def test_a_tier_is_checked_against_the_file(tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.yaml"
    tiers.write_text("tiers: {free: {rpm: 5}}")
    assert vilix("create", "--name", "a", "--tier", "free", "--tiers-file", str(tiers)).exit_code == 0
    rejected = vilix("create", "--name", "b", "--tier", "fre", "--tiers-file", str(tiers))
    assert rejected.exit_code == 1
    assert "no tier 'fre'" in rejected.stderr
    assert "free" in rejected.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--name", "b", "--rpm", "0"), "--rpm is '0'"),
        (("create", "--name", "b", "--rpm", "many"), "--rpm is 'many'"),
        (("create", "--name", "b", "--tpm", "999999999999"), "limits.tpm"),
        (("create", "--name", "b", "--expires", "soon"), "--expires is 'soon'"),
        (("create", "--name", "b", "--expires", "2001-01-01"), "in the past"),
        (("create", "--name", "b", "--model-limit", "large"), "MODEL:NAME=NUMBER"),
        (("create", "--name", "b", "--model-limit", "large:rmp=1"), "the names are rpm"),
        (("set", "shop"), "nothing to change"),
        (("set", "nobody", "--rpm", "1"), "'nobody'"),
        (("rotate", "shop", "--grace", "long"), "--grace is 'long'"),
        (("usage", "nobody"), "'nobody'"),
        (("list", "--redis-url", "redis://u:hidden@127.0.0.1:1/0"), "VILIX_REDIS_URL"),
        (("list", "--redis-url", "http://127.0.0.1:1/0"), "must begin with redis://"),
        (("list", "--redis-url", "redis+sentinel://127.0.0.1:1/0"), "?master=NAME"),
        (("list", "--redis-url", "redis+cluster://somewhere"), "HOST:PORT"),
    ],
)
def test_an_invalid_command_fails_with_one_line(arguments: tuple[str, ...], message: str) -> None:
    vilix("create", "--name", "shop")
    result = vilix(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hidden" not in result.stderr


def test_a_redis_that_rejects_writes_is_not_reported_as_silent(url: str) -> None:
    with sync_redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", "1mb")
        try:
            made = vilix("create", "--name", "shop")
        finally:
            client.config_set("maxmemory", "0")
    assert made.exit_code == 1
    assert "rejects writes (full)" in made.stderr


def test_a_revoked_key_can_be_neither_changed_nor_rotated() -> None:
    assert vilix("create", "--name", "shop").exit_code == 0
    key_id = record_of("shop")["id"]
    assert vilix("revoke", "shop").exit_code == 0
    for arguments in (("rotate", key_id), ("set", key_id, "--rpm", "5")):
        rejected = vilix(*arguments)
        assert rejected.exit_code == 1
        assert "was revoked" in rejected.stderr
    assert record_of(key_id)["revoked"] is not None


@pytest.mark.parametrize("name", ["key_0123456789Ab", "a/b"])
def test_a_name_that_looks_like_an_id_or_a_path_is_rejected(name: str) -> None:
    rejected = vilix("create", "--name", name)
    assert rejected.exit_code == 1
    assert name in rejected.stderr
