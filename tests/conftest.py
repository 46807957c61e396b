"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run, so that a failure can be repeated; `VILIX_TEST_RANDOM=1` looks for new ones. No deadline:
# a loaded machine says nothing about the code.
settings.register_profile("vilix", derandomize=os.environ.get("VILIX_TEST_RANDOM") != "1", deadline=None)
settings.load_profile("vilix")
