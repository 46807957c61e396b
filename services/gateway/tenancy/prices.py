"""The prices of models: a file, which is read again when it changes, and the cost of a request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator
from redis.asyncio import Redis

from services.gateway.redis.audit_log import last_prices, note_prices
from services.gateway.redis.link import RedisLink
from services.gateway.tenancy.limits import NO_BOOLEAN
from services.gateway.tenancy.watched_file import WatchedFile
from services.runtime import yaml_file

MILLION: Final = 1_000_000
"""Prices are for so many tokens."""
MAX_PRICE: Final = 10**9
"""The highest price. Lua's numbers are exact up to 2**53, and money.lua adds three products of a million and one."""
_log: Final = logging.getLogger(__name__)
Units = Annotated[int, Field(ge=0, le=MAX_PRICE, strict=True), NO_BOOLEAN]


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency and its smallest unit, in which all amounts are integers."""

    currency: str
    decimals: int
    """The smallest unit is 10 ** -decimals of the currency."""

    def text(self, units: int) -> str:
        """Return an amount as people read it, such as `0.001250 USD`."""
        whole, parts = divmod(abs(units), 10**self.decimals)
        digits = f"{whole:,}" + (f".{parts:0{self.decimals}}" if self.decimals else "")
        return f"{'-' if units < 0 else ''}{digits} {self.currency}"


@dataclass(frozen=True, slots=True)
class ModelPrice(Currency):
    """The price of a million tokens of one model, in the smallest unit of the currency."""

    prompt: int
    cached: int
    """The price of the tokens of a prompt that came from the prefix cache."""
    completion: int

    def cost(self, tokens: Tokens) -> int:
        """Return the cost of a request, rounded up to a whole unit, as money.lua does."""
        prompt = tokens.prompt or 0
        cached = min(tokens.cached, prompt)
        exact = (prompt - cached) * self.prompt + cached * self.cached + tokens.completion * self.completion
        return -(-exact // MILLION)


class Tokens(Protocol):
    """The tokens of a request."""

    @property
    def prompt(self) -> int | None:
        """Those of the prompt, cached ones included."""
        ...

    @property
    def cached(self) -> int:
        """Those of the prompt that came from the prefix cache."""
        ...

    @property
    def completion(self) -> int:
        """The generated ones."""
        ...


class _Price(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: Units = Field(description="Units for a million tokens of prompts.")
    cached: Units | None = Field(None, description="The same for cached tokens of prompts; by default `prompt`.")
    completion: Units | None = Field(None, description="The same for generated tokens; by default `prompt`.")

    @model_validator(mode="after")
    def _check_cached(self) -> _Price:
        if self.cached is not None and self.cached > self.prompt:
            raise ValueError(f"cached is {self.cached}; it must be at most prompt, which is {self.prompt}")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: str = Field(pattern=r"^[A-Z]{3}$", description="The currency, as in ISO 4217.")
    decimals: Annotated[int, Field(ge=0, le=9, strict=True), NO_BOOLEAN]
    models: dict[str, _Price]


@dataclass(frozen=True, slots=True)
class PriceList:
    """The content of a file of prices."""

    currency: Currency
    models: Mapping[str, ModelPrice]


def read_prices(path: Path) -> PriceList:
    """Return the prices of a YAML file. Raises OSError, and ValueError that names the wrong value."""
    file = yaml_file.read(path, _File)
    models = {
        model: ModelPrice(
            currency=file.currency,
            decimals=file.decimals,
            prompt=price.prompt,
            cached=price.prompt if price.cached is None else price.cached,
            completion=price.prompt if price.completion is None else price.completion,
        )
        for model, price in file.models.items()
    }
    return PriceList(Currency(file.currency, file.decimals), models)


async def last_currency(redis: Redis) -> Currency | None:
    """Return the currency of the prices that the gateways read last; None without any. Raises RedisError."""
    prices = await last_prices(redis)
    return None if prices is None else Currency(prices["currency"], prices["decimals"])


class Prices:
    """The prices of this gateway."""

    def __init__(self, path: Path | None) -> None:
        """Read the prices of a YAML file; None for no prices. Raises ValueError and OSError."""
        self._currency: Currency | None = None
        self._unpriced: Final[set[str]] = set()
        self._file: Final[WatchedFile[PriceList | None]] = WatchedFile(path, "prices", self._read, None)

    @property
    def currency(self) -> Currency | None:
        """The currency; None without a file."""
        return self._currency

    def _read(self, path: Path) -> PriceList:
        prices = read_prices(path)
        if self._currency not in (None, prices.currency):
            # Budgets and sums are numbers without a currency.
            raise ValueError(f"{path.name} has another currency or other decimals; restart all gateways to change them")
        self._currency = prices.currency
        return prices

    def open(self, link: RedisLink) -> None:
        """Begin to watch the file for changes, which the audit log behind `link` notes."""
        self._file.open(link, _note)

    async def close(self) -> None:
        """Stop watching the file."""
        await self._file.close()

    def of(self, model: str) -> ModelPrice | None:
        """Return the price of a model that is served; None if its tokens cost nothing, which is logged once."""
        content = self._file.content
        price = None if content is None else content.models.get(model)
        if content is not None and price is None and model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("a model has no price, so its tokens cost nothing", extra={"model": model})
        return price


async def _note(redis: Redis, prices: PriceList | None) -> None:
    if prices is None:
        return
    models = {
        model: {"prompt": price.prompt, "cached": price.cached, "completion": price.completion}
        for model, price in prices.models.items()
    }
    await note_prices(redis, {**asdict(prices.currency), "models": models})
