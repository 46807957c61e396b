"""Separate environments, for packages that pin other versions than ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.repository import ROOT

INSTALL_SECONDS = 900
"""Long enough for a slow connection. The environment is kept in .cache."""


def python_of(name: str) -> Path:
    """Return the interpreter of the environment `name`, and install the environment first if necessary."""
    return installed(name) / "bin" / "python"


def node_modules_of(name: str) -> Path:
    """Return the packages of the JavaScript environment `name`, and install the environment first if necessary."""
    return installed(name) / "node_modules"


def installed(name: str) -> Path:
    """Return the directory of the environment `name`, which is installed first if necessary."""
    subprocess.run(["make", "--silent", f".cache/{name}/.installed"], cwd=ROOT, check=True, timeout=INSTALL_SECONDS)
    return ROOT / ".cache" / name
