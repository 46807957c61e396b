from __future__ import annotations

from services.gateway.dialects.ignored_fields import MOST_CHARACTERS, ignored_header


def test_names_that_do_not_fit_are_left_out() -> None:
    names = [f"field_{number:04}" for number in range(500)]
    header = ignored_header(names)["x-ignored-params"]
    assert header.split(",") == names[: len(header.split(","))]
    assert MOST_CHARACTERS - len("field_0000,") < len(header) <= MOST_CHARACTERS


def test_a_name_that_is_too_long_does_not_displace_others() -> None:
    assert ignored_header(["a", "b" * 2000, "c"]) == {"x-ignored-params": "a,c"}
    assert ignored_header(["b" * 2000]) == {}
