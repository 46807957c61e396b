"""LangChain's structured output by a required tool call with nested classes, from a model with random weights."""

import os
from enum import StrEnum
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict


class Exact(BaseModel):
    """A schema without further properties, with which random weights would never end."""

    model_config = ConfigDict(extra="forbid")


class Place(Exact):
    """A city."""

    city: Literal["تهران", "شیراز"]


class Unit(StrEnum):
    """A unit of temperature."""

    CELSIUS = "C"
    KELVIN = "K"


class Weather(Exact):
    """The weather of a place."""

    place: Place
    then: Place | None
    unit: Unit


model = ChatOpenAI(
    model="qwen3-8b",
    base_url=os.environ["VILIX_URL"],
    api_key=os.environ["VILIX_API_KEY"],
    max_retries=0,
    max_tokens=800,
)
for strict in (None, True):
    result = model.with_structured_output(Weather, method="function_calling", strict=strict).invoke("?")
    assert isinstance(result, Weather), result
print("done")
