"""The reaction of a test to a missing requirement of the machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unmet(message: str) -> NoReturn:
    """Skip the test with this reason, or fail it if VILIX_TEST_REQUIRE_ALL is 1."""
    if os.environ.get("VILIX_TEST_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
