"""`make run` installs what the system needs, and nothing that only tests and checks need."""

from __future__ import annotations

import re
import tomllib

from tests.support.repository import ROOT

ALSO_USED: frozenset[str] = frozenset({"hatchling", "psutil"})
"""What builds the packages of this repository, and what a package of the system depends on."""


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_make_run_installs_nothing_that_only_tests_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        extra: {re.split(r"[<>=\[;]", requirement)[0] for requirement in requirements}
        for extra, requirements in project["optional-dependencies"].items()
    }
    tests_alone = extras["dev"] - extras["local"] - ALSO_USED
    assert {"pytest", "hypothesis", "playwright", "mypy", "ruff"} <= tests_alone
    assert tests_alone & (locked("cpu.txt") | locked("build.txt")) == set()
    assert tests_alone <= locked("local.txt")


def test_what_runs_is_what_is_tested() -> None:
    assert locked("cpu.txt") <= locked("local.txt")
