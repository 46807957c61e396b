"""`vilix keys` on a real Valkey."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.gateway.tenancy import keys
from tests.support.valkey import running_valkey

RUNNER = CliRunner()


pytestmark = pytest.mark.usefixtures("environment")


def vilix(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["keys", *arguments])


def record_of(name: str) -> dict[str, Any]:
    result = vilix("show", name, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_every_field_of_a_key_can_be_set_shown_and_changed() -> None:
    options = ("--owner", "team", "--models", "small, large", "--rpm", "60", "--tpm", "1000", "--concurrency", "5")
    budgets = ("--daily-tokens", "5000", "--monthly-tokens", "90000", "--expires", "2099-01-31", "--tier", "free")
    money = ("--daily-cost", "1000", "--weekly-cost", "5000", "--monthly-cost", "20000")
    of_model = ("--model-limit", "large:rpm=5,concurrency=1")
    made = vilix("create", "--name", "shop", *options, *budgets, *money, *of_model)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.startswith("vlx_")
    limits = {"rpm": 60, "tpm": 1000, "concurrency": 5, "daily_tokens": 5000, "monthly_tokens": 90000}
    limits |= {"daily_cost": 1000, "weekly_cost": 5000, "monthly_cost": 20000}
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


def test_costs_are_shown_in_the_currency_of_the_prices(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    key = json.loads(vilix("create", "--name", "shop", "--json").stdout)
    with sync_redis.Redis.from_url(url, decode_responses=True) as client:
        use(client, key["id"], tokens=123_456_789, last=int(datetime.now(UTC).timestamp()), cost=12_345_678_901_234)
        assert "12,345,678,901,234" in vilix("usage", "shop").stdout, "no gateway has read prices"
        client.set("vilix:prices", json.dumps({"currency": "USD", "decimals": 6, "models": {}}))
    table = vilix("usage", "shop").stdout
    assert "12,345,678.901234 USD" in table
    assert max(map(len, table.splitlines())) <= 80, table
    (row,) = json.loads(vilix("usage", "shop", "--json").stdout)
    assert (row["cost"], row["currency"], row["decimals"]) == (12_345_678_901_234, "USD", 6)


def use(client: Any, key_id: str, *, tokens: int, last: int, cost: int | None = None) -> None:
    """Note usage of a key at a time, as the limits script does."""
    (record,) = client.keys(f"vilix:*:key:{key_id}")
    day = f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d}"
    counters = {"prompt:a": tokens - 1, "completion:a": 1, "tokens": tokens, "last": last}
    counters |= {} if cost is None else {"cost:a": cost}
    for period in (day, day[: len("2026-11")]):
        client.hset(f"{record.split(':key:')[0]}:usage:{key_id}:{period}", mapping=counters)


def test_the_list_shows_the_last_use_and_the_tokens_of_this_month(url: str) -> None:
    ids = [json.loads(vilix("create", "--name", name, "--json").stdout)["id"] for name in ("new", "old", "busy")]
    now, long_ago = int(datetime.now(UTC).timestamp()), int((datetime.now(UTC) - timedelta(days=70)).timestamp())
    with sync_redis.Redis.from_url(url, decode_responses=True) as client:
        use(client, ids[1], tokens=999, last=long_ago)
        use(client, ids[2], tokens=1234, last=long_ago)
        use(client, ids[2], tokens=56_789, last=now)
    rows = {row["name"]: row for row in json.loads(vilix("list", "--json").stdout)}
    assert [rows[name]["last_used"] for name in ("new", "old", "busy")] == [None, long_ago, now]
    tokens = [
        rows[name]["month"]["prompt_tokens"] + rows[name]["month"]["completion_tokens"]
        for name in ("new", "old", "busy")
    ]
    assert tokens == [0, 0, 56_789]
    table = vilix("list").stdout.splitlines()
    (busy,) = (line for line in table if " busy " in line)
    assert "56,789" in busy
    assert any("never" in line for line in table if " new " in line)
    assert any(f"{datetime.fromtimestamp(long_ago, UTC):%Y-%m-%d}" in line for line in table if " old " in line)


def test_revoked_keys_are_listed_on_request() -> None:
    assert vilix("list", "--revoked").stdout == "No key was revoked.\n"
    for name in ("shop", "other"):
        assert vilix("create", "--name", name).exit_code == 0
    assert vilix("revoke", "shop").exit_code == 0
    (revoked,) = json.loads(vilix("list", "--revoked", "--json").stdout)
    assert revoked["name"] == "shop"
    assert revoked["revoked"] >= revoked["created"]
    assert "shop" in vilix("list", "--revoked").stdout
    assert [row["name"] for row in json.loads(vilix("list", "--json").stdout)] == ["other"]


def test_an_empty_table_says_so() -> None:
    assert "There are no keys" in vilix("list").stdout
    vilix("create", "--name", "shop")
    assert vilix("usage", "shop").stdout == "This key has no usage in the last 30 days.\n"


def test_tables_fit_80_columns(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ("--rpm", "600", "--tpm", "1000000", "--concurrency", "50", "--monthly-tokens", "400000000")
    name = "a-key-with-quite-a-long-name-for-the-shop"
    made = vilix("create", "--name", name, "--owner", "The shop's team", *limits, "--expires", "90d", "--json")
    with sync_redis.Redis.from_url(url, decode_responses=True) as client:
        use(client, json.loads(made.stdout)["id"], tokens=123_456_789, last=int(datetime.now(UTC).timestamp()))
    monkeypatch.setenv("COLUMNS", "80")
    for command in (("list",), ("usage", name), ("usage", name, "--by", "model")):
        lines = vilix(*command).stdout.splitlines()
        assert max(map(len, lines)) <= 80, lines
    monkeypatch.setenv("COLUMNS", "200")
    assert "The shop's team" in vilix("list").stdout


@pytest.fixture
def other_url(tmp_path: Path) -> Iterator[str]:
    with running_valkey(tmp_path) as url:
        yield url


def test_exported_keys_are_valid_in_another_redis(
    url: str, other_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (
        "--owner",
        "team",
        "--models",
        "small",
        "--rpm",
        "60",
        "--model-limit",
        "large:rpm=5",
        "--expires",
        "90d",
    )
    first = json.loads(vilix("create", "--name", "shop", *options, "--json").stdout)
    second = json.loads(vilix("rotate", "shop", "--grace", "1h", "--json").stdout)
    revoked = json.loads(vilix("create", "--name", "gone", "--json").stdout)
    vilix("revoke", "gone")
    path = tmp_path / "keys.json"
    assert vilix("export", "--output", str(path)).exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(each["key"] in path.read_text() for each in (first, second, revoked))
    shown = record_of("shop")

    monkeypatch.setenv("VILIX_REDIS_URL", other_url)
    assert "Imported 1 of 1 keys" in vilix("import", str(path)).stdout
    assert record_of("shop") == shown
    assert secrets_of(other_url, first["key"], second["key"], revoked["key"]) == [shown["id"], shown["id"], None]
    with sync_redis.Redis.from_url(other_url, decode_responses=True) as client:
        (name,) = client.keys(f"*:secret:{sha256(first['key'].encode()).hexdigest()}")
        # The grace period of the older secret goes on.
        assert 0 < int(client.ttl(name)) <= 3600
    again = json.loads(vilix("import", str(path), "--json").stdout)
    assert again == [{"id": shown["id"], "name": "shop", "result": "present"}]
    # What was revoked is not made valid by an older export.
    assert vilix("revoke", "shop").exit_code == 0
    assert json.loads(vilix("import", str(path), "--json").stdout)[0]["result"] == "present"
    assert secrets_of(other_url, first["key"], second["key"]) == [None, None]


def secrets_of(url: str, *secrets: str) -> list[str | None]:
    """Return the ids of the valid keys with these secrets."""

    async def find() -> list[str | None]:
        async with Redis.from_url(url, decode_responses=True) as redis:
            found = [await keys.find(redis, secret) for secret in secrets]
            return [None if key is None else key.id for key in found]

    return asyncio.run(find())


def test_a_key_whose_name_is_taken_is_not_imported(
    url: str, other_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(vilix("create", "--name", "shop", "--json").stdout)
    path = tmp_path / "keys.json"
    path.write_text(vilix("export").stdout)
    monkeypatch.setenv("VILIX_REDIS_URL", other_url)
    own = json.loads(vilix("create", "--name", "shop", "--json").stdout)
    result = vilix("import", str(path))
    assert result.exit_code == 1
    assert f"{first['id']} was skipped" in result.stderr
    assert secrets_of(other_url, first["key"], own["key"]) == [None, own["id"]]


def of_another_shard(export: Any) -> str:
    """Return a digest that no secret of the exported key can have."""
    (digest,) = export["keys"][0]["secrets"]
    return f"{(int(digest[:2], 16) + 1) % 256:02x}{digest[2:]}"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda export: export.update(version=2), "version"),
        (lambda export: export["keys"][0].update(id="../x"), "keys.0.id"),
        (lambda export: export["keys"][0]["secrets"].update({"00": 0}), "keys.0.secrets"),
        (lambda export: export["keys"][0].update(secrets={of_another_shard(export): 0}), "does not belong"),
        (lambda export: export["keys"][0].update(admin=True), "keys.0.admin"),
    ],
)
def test_what_is_no_export_is_rejected_in_one_line(change: Callable[[Any], None], problem: str, tmp_path: Path) -> None:
    assert vilix("create", "--name", "shop").exit_code == 0
    export = json.loads(vilix("export").stdout)
    change(export)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(export))
    result = vilix("import", str(path))
    assert result.exit_code == 1
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["create", "set"])
def test_the_help_says_what_a_limit_may_be(command: str) -> None:
    text = vilix(command, "--help").stdout
    for option in ("--rpm", "--tpm", "--concurrency", "--daily-tokens", "--monthly-tokens"):
        (line,) = (line for line in text.splitlines() if line.lstrip("│ *").startswith(f"{option} "))
        assert "N|none" in line


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
