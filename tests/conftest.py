"""Hypothesis' profile, the scheduler of `make test` and the summary: settings of all tests."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Every run generates the same examples, so that a failure can be reproduced; `VILIX_TEST_RANDOM=1` generates new ones,
# and more. There is no deadline, because a loaded machine says nothing about the code.
_RANDOM: Final = os.environ.get("VILIX_TEST_RANDOM") == "1"
settings.register_profile("vilix", derandomize=not _RANDOM, max_examples=500 if _RANDOM else 50, deadline=None)
settings.load_profile("vilix")

# A child that a test starts would write gRPC's notes about forks into its own log, which some tests read. The variable
# must be set before gRPC is imported, as `vilix` does for itself.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins: Final = ("tests.support.fault_table",)

_PARTS: Final = ("contract", "e2e", "faults")
"""Layers in which each directory, and each file beside the directories, shares processes. Tests in `unit` share none;
in other layers, all tests of a layer do."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Distribute tests to the workers of `make test` in groups that share the processes that they start."""
    return _BySharedProcesses(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summaries that tests of generated input record, such as the seed, whether they passed or failed."""
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
