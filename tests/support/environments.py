"""Environments of their own, for tests of what pins other versions than ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.repository import ROOT

INSTALL_SECONDS = 900
"""For a slow connection; the environment is kept in .cache."""


def python_of(name: str) -> Path:
    """The interpreter of the environment `name`, which is made if it is not there."""
    directory = ROOT / ".cache" / name
    subprocess.run(["make", "--silent", f".cache/{name}/.installed"], cwd=ROOT, check=True, timeout=INSTALL_SECONDS)
    return directory / "bin" / "python"
