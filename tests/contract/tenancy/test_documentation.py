"""The examples of docs/keys.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import yaml

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import read_tiers
from services.gateway.tenancy.prices import read_prices
from tests.contract.tenancy.conftest import URL, body, client_of
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.repository import ROOT

DOCUMENT = (ROOT / "docs" / "keys.md").read_text()
YAML_EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)


async def test_the_example_for_the_usage_stream_drains_it(
    gateways: list[str], worker: CountingWorker, redis_url: str, new_key: Callable[..., Awaitable[tuple[Key, str]]]
) -> None:
    key, secret = await new_key()
    async with client_of(gateways[0], secret) as client:
        usages = [(await client.post(URL, json=body(tokens))).json()["usage"] for tokens in (2, 3)]
    first, again = _drain(redis_url), _drain(redis_url)
    records = [line.split() for line in first.splitlines() if f" {key.id} " in line]
    assert sorted(int(record[-1]) for record in records) == [2, 3]
    assert {int(record[-2]) for record in records} == {usage["prompt_tokens"] for usage in usages}
    assert key.id not in again


def test_the_example_of_a_tiers_file_is_valid(tmp_path: Path) -> None:
    text, _ = YAML_EXAMPLES
    (tmp_path / "tiers.yaml").write_text(text)
    assert set(read_tiers(tmp_path / "tiers.yaml")) == set(yaml.safe_load(text)["tiers"])


def test_the_example_of_a_prices_file_is_valid(tmp_path: Path) -> None:
    _, text = YAML_EXAMPLES
    (tmp_path / "prices.yaml").write_text(text)
    prices = read_prices(tmp_path / "prices.yaml")
    assert set(prices.models) == set(yaml.safe_load(text)["models"])
    assert prices.currency.text(5_000_000) == "5.000000 USD"


def _drain(redis_url: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    environment = {**os.environ, "VILIX_REDIS_URL": redis_url}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
