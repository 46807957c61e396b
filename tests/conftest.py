"""What holds for all tests."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# The same examples in every run, so that a failure can be repeated; `VILIX_TEST_RANDOM=1` looks for new ones, and for more.
# No deadline: a loaded machine says nothing about the code.
_RANDOM: Final = os.environ.get("VILIX_TEST_RANDOM") == "1"
settings.register_profile("vilix", derandomize=not _RANDOM, max_examples=500 if _RANDOM else 50, deadline=None)
settings.load_profile("vilix")

pytest_plugins: Final = ("tests.support.fault_table",)

_PARTS: Final = ("contract", "e2e", "faults")
"""Layers of whose directories, and files beside them, each shares processes within itself. In `unit` no tests do, and
elsewhere all tests of a layer."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give the two workers of `make test` whole groups of tests: those that share the processes that they start."""
    return _BySharedProcesses(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests of generated input want to be known of a run, such as its seed, whether they passed or failed."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "summary" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")


class _BySharedProcesses(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", maxsplit=1)[0]
        _, layer, within = path.split("/", 2)
        if layer == "unit":
            return path
        return f"{layer}/{within.split('/')[0]}" if layer in _PARTS else layer
