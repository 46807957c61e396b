"""`vilix audit` on a real Valkey."""

from __future__ import annotations

import getpass
import json

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app

pytestmark = pytest.mark.usefixtures("environment")


def vilix(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_changes_are_listed_latest_first_and_exported_as_json_lines() -> None:
    assert vilix("keys", "create", "--name", "shop", "--rpm", "5").exit_code == 0
    assert vilix("keys", "set", "shop", "--rpm", "none").exit_code == 0
    shown = vilix("audit").stdout.splitlines()
    assert [word for line in shown for word in line.split() if word.startswith("key.")] == [
        "key.changed",
        "key.created",
    ]
    exported = [json.loads(line) for line in vilix("audit", "--json").stdout.splitlines()]
    assert [entry["after"] for entry in exported] == [{"limits": None}, {"limits": {"rpm": 5}}]
    assert {entry["actor"] for entry in exported} == {f"user {getpass.getuser()}"}


def test_entries_are_selected_by_subject_and_time() -> None:
    assert vilix("audit").stdout == "Nothing was changed in that time.\n"
    for name in ("shop", "other"):
        assert vilix("keys", "create", "--name", name).exit_code == 0
    assert len(vilix("audit", "--subject", "shop", "--json").stdout.splitlines()) == 1
    wrong = vilix("audit", "--since", "yesterday")
    assert (wrong.exit_code, wrong.stderr) == (
        1,
        "error: --since is 'yesterday'; it must be a duration such as 12h, 90m or 30d\n",
    )
