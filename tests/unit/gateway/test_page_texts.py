"""The texts of the page agree with the code about codes of errors, paths, headers and limits."""

from __future__ import annotations

import json
import re

import pytest

from services.gateway.credential import AZURE, BEARER
from services.gateway.dialects.anthropic_messages.dialect import KEY_HEADER
from services.gateway.dialects.openai_limits import UNLIMITED
from services.gateway.endpoints.api_route import PREFIXES
from tests.support.repository import ROOT

CONTENT = ROOT / "services/gateway/site/content"


@pytest.fixture(params=["en", "fa"])
def text(request: pytest.FixtureRequest) -> str:
    """Return the texts of the page in one language."""
    return (CONTENT / f"{request.param}.md").read_text()


def section(text: str, anchor: str) -> str:
    """Return the section with an anchor."""
    return text.partition(f"{{#{anchor}}}")[2].partition("\n## ")[0]


def test_every_example_of_an_openai_error_has_a_code(text: str) -> None:
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    errors = [block["error"] for block in blocks if "param" in block.get("error", {})]
    assert [error["code"] for error in errors] == ["server_error", "decimal_above_max_value"]


def test_every_prefix_of_the_paths_is_named(text: str) -> None:
    endpoints = section(text, "endpoints")
    assert [prefix for prefix in PREFIXES if prefix and f"`{prefix}`" not in endpoints] == []


def test_every_header_of_the_key_is_named(text: str) -> None:
    keys = section(text, "authentication")
    assert BEARER.example in keys
    assert [header.name for header in (AZURE, KEY_HEADER) if f"`{header.name}`" not in keys] == []


def test_the_limit_of_a_key_without_one_is_named(text: str) -> None:
    assert f"`{UNLIMITED}`" in section(text, "limits")
