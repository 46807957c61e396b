"""Programs from Debian's packages that some tests use."""

from __future__ import annotations

import os
import shutil

from tests.support.requirement import unmet


def require(program: str, *, package: str) -> str:
    """Return the program's path. Without it the test is skipped, or fails: see `unmet`."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        unmet(f"{program} is missing; make system-deps installs it (Debian: {package})")
    return path
