"""`vilix request` on a real Valkey."""

from __future__ import annotations

import json

import pytest
import redis as sync_redis
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.gateway.tenancy.receipts import name_of

pytestmark = pytest.mark.usefixtures("environment")


def vilix(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_a_receipt_is_shown_as_a_table_and_as_json(url: str) -> None:
    key_id = json.loads(vilix("keys", "create", "--name", "shop", "--json").stdout)["id"]
    receipt = {"id": "req-1", "created": 0.0, "outcome": "complete", "usage": {"prompt_tokens": 7}, "error": None}
    with sync_redis.Redis.from_url(url) as client:
        client.hset(name_of(key_id), "req-1", json.dumps(receipt))
        seconds, _ = client.time()  # type: ignore[misc]  # its type says that it may be awaited
        client.zadd(f"{name_of(key_id)}:at", {"req-1": seconds})
    shown = [line.split() for line in vilix("request", "req-1").stdout.splitlines()]
    assert ["outcome", "complete"] in shown
    assert ["usage.prompt_tokens", "7"] in shown
    assert ["created", "1970-01-01", "00:00:00", "UTC"] in shown
    found = json.loads(vilix("request", "req-1", "--key", "shop", "--json").stdout)
    assert found == {"key": key_id, "key_name": "shop", "receipt": receipt}


def test_an_id_of_two_keys_needs_an_option(url: str) -> None:
    names = ("first", "second")
    ids = [json.loads(vilix("keys", "create", "--name", name, "--json").stdout)["id"] for name in names]
    with sync_redis.Redis.from_url(url) as client:
        seconds, _ = client.time()  # type: ignore[misc]  # its type says that it may be awaited
        for key_id in ids:
            client.hset(name_of(key_id), "chosen", json.dumps({"id": "chosen"}))
            client.zadd(f"{name_of(key_id)}:at", {"chosen": seconds})
    shared = vilix("request", "chosen")
    assert (shared.exit_code, shared.stdout) == (1, "")
    assert all(name in shared.stderr for name in names)
    assert json.loads(vilix("request", "chosen", "--key", "second", "--json").stdout)["key"] == ids[1]


def test_an_unknown_request_is_an_error() -> None:
    unknown = vilix("request", "req-2")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "there is no receipt of a request 'req-2'" in unknown.stderr
