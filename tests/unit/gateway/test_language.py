"""The language that a caller prefers."""

from __future__ import annotations

import pytest

from services.gateway.i18n.language import preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("fa", "fa"),
        ("fa-IR,fa;q=0.9,en;q=0.8", "fa"),
        ("en-GB,en;q=0.9,fa;q=0.8", "en"),
        ("en;q=0.2, FA;q=0.7", "fa"),
        ("de,fa;q=0.3", "fa"),
        ("fa;q=0", "en"),
        ("fa;q=many", "en"),
        ("*", "en"),
        ("de", "en"),
    ],
)
def test_the_language_with_the_highest_weight_is_chosen(header: str, language: str) -> None:
    assert preferred(header) == language
