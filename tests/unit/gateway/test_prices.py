"""Prices: exact costs, their text, and the file."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.limits_script import Produced
from services.gateway.tenancy.prices import MAX_PRICE, Currency, ModelPrice, Prices, read_prices
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.watched_file import WatchedFile

PRICES = """
currency: USD
decimals: 6
models:
  small: {prompt: 150_000, cached: 15_000, completion: 600_000}
  vectors: {prompt: 20_000}
"""
units = st.integers(0, MAX_PRICE)
tokens = st.integers(0, 2**32)


def price(prompt: int, cached: int, completion: int) -> ModelPrice:
    return ModelPrice(currency="USD", decimals=6, prompt=prompt, cached=cached, completion=completion)


@given(st.builds(price, units, units, units), st.builds(Produced, tokens, tokens, tokens))
def test_a_cost_is_the_exact_one_rounded_up(of: ModelPrice, produced: Produced) -> None:
    prompt = produced.prompt or 0
    cached = min(produced.cached, prompt)
    exact = Fraction((prompt - cached) * of.prompt + cached * of.cached + produced.completion * of.completion, 10**6)
    cost = of.cost(produced)
    assert 0 <= cost - exact < 1


@pytest.mark.parametrize(("completion", "cost"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_part_of_a_unit_costs_a_unit(completion: int, cost: int) -> None:
    assert price(0, 0, 250_000).cost(Produced(completion=completion)) == cost


def test_a_prompt_that_was_not_counted_costs_nothing() -> None:
    assert price(10**6, 10**6, 10**6).cost(Produced(completion=2)) == 2


@pytest.mark.parametrize(
    ("decimals", "amount", "text"),
    [
        (6, 1_250, "0.001250 USD"),
        (6, 12_345_000_000, "12,345.000000 USD"),
        (0, 50_000, "50,000 USD"),
        (2, -5, "-0.05 USD"),
    ],
)
def test_an_amount_is_written_in_the_currency(decimals: int, amount: int, text: str) -> None:
    assert Currency("USD", decimals).text(amount) == text


def test_a_file_has_the_prices_of_models(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    prices = Prices(path)
    assert prices.currency == Currency("USD", 6)
    assert prices.of("small") == price(150_000, 15_000, 600_000)
    assert prices.of("vectors") == price(20_000, 20_000, 20_000), "all tokens cost as much as others by default"
    assert prices.of("free") is None


def test_a_model_without_a_price_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    prices = Prices(path)
    for model in ("free", "small", "free", "other"):
        prices.of(model)
    assert [record.__dict__["model"] for record in caplog.records] == ["free", "other"]
    Prices(None).of("free")
    assert len(caplog.records) == 2


def test_without_a_file_nothing_has_a_price() -> None:
    assert (Prices(None).currency, Prices(None).of("small")) == (None, None)


@pytest.mark.parametrize(("old", "new"), [("USD", "EUR"), ("decimals: 6", "decimals: 5")])
def test_the_currency_does_not_change_at_run_time(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    prices = Prices(path)
    path.write_text(PRICES.replace(old, new).replace("600_000", "700_000"))
    prices._file._read_again()
    assert (prices.currency, prices.of("small")) == (Currency("USD", 6), price(150_000, 15_000, 600_000))
    path.write_text(PRICES.replace("600_000", "800_000"))
    prices._file._read_again()
    assert prices.of("small") == price(150_000, 15_000, 800_000)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("150_000", "0.15", "prices.yaml, line 5: models.small.prompt: "),
        ("150_000", "-1", "prices.yaml, line 5: models.small.prompt: "),
        ("150_000", "yes", "prices.yaml, line 5: models.small.prompt: "),
        ("150_000", "1_000_000_001", "prices.yaml, line 5: models.small.prompt: "),
        ("15_000,", "150_001,", "cached is 150001; it must be at most prompt, which is 150000"),
        ("USD", "dollars", "prices.yaml, line 2: currency: "),
        ("decimals: 6", "decimals: 10", "prices.yaml, line 3: decimals: "),
        ("completion: 600_000", "output: 600_000", "prices.yaml, line 5: models.small.output: "),
        ("600_000", "0600_000", "prices.yaml, line 5: 0600_000 is not a decimal number"),
        ("600_000", "1:30", "prices.yaml, line 5: 1:30 is not a decimal number"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_prices(path)


@pytest.mark.parametrize(
    "value", ['!!int ""', '!!timestamp "x"', '!!bool "x"', "[" * 5000, "{a: " * 5000, '!!float ""'], ids=range(6)
)
def test_a_malformed_file_is_an_error_that_leaves_the_prices(tmp_path: Path, value: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    prices = Prices(path)
    path.write_text(PRICES.replace("600_000", value))
    prices._file._read_again()
    assert prices.of("small") == price(150_000, 15_000, 600_000)


def test_a_change_while_a_file_is_read_for_the_first_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def read(path: Path) -> str:
        text = path.read_text()
        path.write_text("newer")
        return text

    file = WatchedFile(path, "file", read, "")
    assert file.content == "old"
    file._read_again()
    assert file.content == "newer"


def test_a_tier_has_budgets_in_money(tmp_path: Path) -> None:
    path = tmp_path / "tiers.yaml"
    path.write_text("tiers:\n  free: {daily_cost: 5, weekly_cost: 20, models: {small: {monthly_cost: 40}}}\n")
    key = Key(id="k", name="k", created=0, tier="free", limits=Limits(daily_cost=7))
    subject = Tiers(path).subject(key, "small")
    assert subject.limits == Limits(daily_cost=7, weekly_cost=20)
    assert subject.model_limits == Limits(monthly_cost=40)
