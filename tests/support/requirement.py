"""What a test does on a machine that lacks something it needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unmet(message: str) -> NoReturn:
    """Skip the test with this reason, or fail it under VILIX_TEST_REQUIRE_ALL=1."""
    if os.environ.get("VILIX_TEST_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
