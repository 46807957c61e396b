from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from services.runtime.settings import Settings, describe, load


class Color(StrEnum):
    """A color."""

    RED = "red"


class Example(Settings):
    """Settings of the example."""

    listen: str = Field(description="Where it listens.")
    max_body_bytes: int = Field(1024, gt=0, description="The largest body, in bytes.")
    seconds: float = 30.0
    color: Color = Color.RED
    directory: Path = Path("/data")
    shines: bool = False
    name: str = ""
    file: Path | None = None


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["example"])
    monkeypatch.delenv("VILIX_LISTEN", raising=False)


def test_settings_come_from_the_environment_and_are_immutable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VILIX_LISTEN", "127.0.0.1:1")
    settings = load(Example, command="example")
    assert (settings.listen, settings.max_body_bytes) == ("127.0.0.1:1", 1024)
    with pytest.raises(ValidationError, match="frozen"):
        settings.max_body_bytes = 1  # type: ignore[misc]  # the test asserts that it is rejected


@pytest.mark.parametrize("value", ["many", "0"])
def test_an_invalid_value_is_reported_in_one_line_with_name_and_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setenv("VILIX_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("VILIX_MAX_BODY_BYTES", value)
    with pytest.raises(SystemExit) as ended:
        load(Example, command="example")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: VILIX_MAX_BODY_BYTES='{value}': ")


def test_a_missing_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Example, command="example")
    assert ended.value.code == 2
    assert "VILIX_LISTEN is not set" in capsys.readouterr().err


def test_help_lists_every_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["example", "--help"])
    with pytest.raises(SystemExit) as ended:
        load(Example, command="example")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "VILIX_LISTEN  (required)\n      Where it listens." in text
    assert "VILIX_MAX_BODY_BYTES  (default 1024)" in text


def test_help_shows_defaults_as_they_are_written_in_a_variable() -> None:
    text = describe(Example, command="example")
    assert re.findall(r"VILIX_(\w+)  \(default (.*)\)", text) == [
        ("MAX_BODY_BYTES", "1024"),
        ("SECONDS", "30"),
        ("COLOR", "red"),
        ("DIRECTORY", "/data"),
        ("SHINES", "false"),
    ]
    assert re.findall(r"VILIX_(\w+)  \(optional\)", text) == ["NAME", "FILE"]


def test_arguments_are_rejected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["example", "--port", "1"])
    with pytest.raises(SystemExit):
        load(Example, command="example")
    assert "takes no arguments, and got '--port'" in capsys.readouterr().err
