from __future__ import annotations

from pathlib import Path

import pytest

from services.worker import model_list


def test_directories_are_parsed_by_id() -> None:
    directories = model_list.parse("qwen3-8b=/models/qwen3=8b, multilingual-e5-small")
    assert directories == {"qwen3-8b": Path("/models/qwen3=8b"), "multilingual-e5-small": None}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "'' is neither ID=DIRECTORY nor ID"),
        ("a=/a,", "'' is neither"),
        ("a=", "'a=' is neither"),
        ("=/a", "'=/a' is neither"),
        ("a=/a,a", "'a' is named twice"),
    ],
)
def test_an_invalid_list_is_rejected(value: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        model_list.parse(value)


def test_a_model_that_needs_a_directory_is_named_with_the_setting() -> None:
    with pytest.raises(ValueError, match="VILIX_MODELS=a=DIRECTORY"):
        model_list.require_directory("a", None)
