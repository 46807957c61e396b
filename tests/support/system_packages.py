"""Programs from Debian's packages that some tests use."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str, *, package: str) -> str:
    """The program's path. Where it is missing, the test is skipped, or fails under VILIX_TEST_REQUIRE_ALL=1."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        message = f"{program} is missing; make system-deps installs it (Debian: {package})"
        if os.environ.get("VILIX_TEST_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path
