"""An empty Valkey for the commands that manage keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as sync_redis

from tests.support.valkey import running_valkey


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands use the Valkey, which is empty when a test begins."""
    monkeypatch.setenv("VILIX_REDIS_URL", url)
    with sync_redis.Redis.from_url(url) as client:
        client.flushall()
