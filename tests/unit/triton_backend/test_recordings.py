from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from services.inference.triton_backend.engines.recordings import Recording, read


def matches(wanted: list[int], prompt: list[int]) -> bool:
    recording = Recording("r", (1,), prompt_contains=tuple(wanted))
    return recording.matches(array("i", prompt).tobytes())


def test_a_recording_matches_consecutive_ids_only() -> None:
    assert matches([2, 3], [1, 2, 3, 4])
    assert not matches([2, 3], [2, 1, 3])
    assert not matches([2, 3], [3, 2])
    assert matches([], [])


def test_a_recording_matches_whole_ids_only() -> None:
    # The bytes of 1 occur inside those of 256, but not at the beginning of an id.
    assert not matches([1], [256, 256])
    assert matches([1], [256, 1])


def test_the_times_of_a_repeated_recording_continue() -> None:
    steady = Recording("r", (7, 8), start_ms=100, interval_ms=10)
    assert [steady.due_ms(i) for i in range(4)] == [100, 110, 120, 130]
    timed = Recording("r", (7, 8), at_ms=(5, 50))
    assert [timed.due_ms(i) for i in range(4)] == [5, 50, 55, 100]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must hold a JSON list"),
        ([], "must hold a JSON list"),
        ([{"name": "a"}], "recording 0: expected an object with at least name and token_ids"),
        ([{"name": "a", "token_ids": [1], "speed": 2}], "recording 0: unknown key 'speed'"),
        ([{"name": "a", "token_ids": [1, 2], "at_ms": [1]}], "at_ms has 1 entries for 2 tokens"),
        ([{"name": "a", "token_ids": [1], "tokens_per_response": 0}], "tokens_per_response=0"),
    ],
)
def test_an_invalid_file_is_rejected(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "recordings.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read(path)
