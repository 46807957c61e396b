from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.parsing.json_scanner import JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def read(text: str) -> tuple[str, JsonScanner]:
    """Return the part of `text` that was read, and the scanner."""
    scanner = JsonScanner()
    for offset, character in enumerate(text):
        if scanner.complete or not scanner.feed(character):
            return text[:offset], scanner
    return text, scanner


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=float_rejected), dict)
    except ValueError:
        return False


def float_rejected(constant: str) -> Any:
    raise ValueError(constant)


@given(value=OBJECTS, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_valid_objects_are_complete_at_their_last_character(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    taken, scanner = read(text + "}x")
    assert taken == text
    assert scanner.complete


@given(value=OBJECTS, data=st.data())
def test_a_damaged_object_is_complete_only_if_it_is_still_valid(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    offset = data.draw(st.integers(0, len(text) - 1))
    damaged = (
        text[:offset]
        + data.draw(st.sampled_from('{}[]",:0-.eE+tn\\ux \n\x01'))
        + text[offset + data.draw(st.integers(0, 1)) :]
    )
    taken, scanner = read(damaged)
    assert scanner.complete == is_object(taken)
    if is_object(damaged):
        assert taken == damaged.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"a"',
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":01}',
        '{"a":1.}',
        '{"a":"\\x"}',
        '{"a":tru}',
        "{'a':1}",
        '{"a":[1,]}',
        '{"a":[}]',
        "{]",
    ],
)
def test_text_that_is_not_an_object_is_never_complete(text: str) -> None:
    taken, scanner = read(text)
    assert not scanner.complete
    assert taken != text or text == ""
