from __future__ import annotations

import platform
import re
import shutil
import sys
from collections import namedtuple

import pytest

from services.stack import machine

Usage = namedtuple("Usage", "total used free")


def test_this_machine_meets_the_requirements() -> None:
    assert list(machine.lacks()) == []


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("version_info", (3, 13, 0), r"CPython 3\.11 or 3\.12.*install python3\.11"),
        ("platform", "darwin", "needs Linux on x86-64"),
    ],
)
def test_an_unsupported_interpreter_or_system_is_reported(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, sentence: str
) -> None:
    monkeypatch.setattr(sys, attribute, value)
    assert any(re.search(sentence, line) for line in machine.lacks())


def test_an_old_c_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    assert any("glibc 2.35 or newer, and this system has glibc 2.31" in line for line in machine.lacks())


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**9))
    assert any("3 GiB of free disk space here, and 0.9 GiB are free" in line for line in machine.lacks())
