"""The API whose errors and key headers a request gets, by its path and headers."""

from __future__ import annotations

import pytest

from services.gateway.edge.error_format import ANTHROPIC_VERSION, is_anthropic
from services.gateway.endpoints.api_route import PREFIXES

VERSION = {ANTHROPIC_VERSION: "2023-06-01"}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_anthropics_paths_are_known_under_every_prefix(prefix: str) -> None:
    for path in ("/messages", "/messages/", "/messages/count_tokens"):
        assert is_anthropic(prefix + path, {})
    for path in ("/models", "/models/a/b"):
        assert is_anthropic(prefix + path, VERSION)
        assert not is_anthropic(prefix + path, {})


@pytest.mark.parametrize("path", ["/site/messages", "/v1/chat/completions", "/messages.json", "messages", "/"])
def test_other_paths_belong_to_no_api_of_anthropic(path: str) -> None:
    assert not is_anthropic(path, VERSION)
