"""Faults: short by default, long in `make faults`, which also writes the table of what was measured."""

from __future__ import annotations

import os
import statistics
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.faults.system import ROOT, Connection, System, running_system

FULL = os.environ.get("VILIX_FAULTS") == "full"
_rows: list[tuple[str, str, str]] = []


def times(short: int, full: int) -> int:
    """How often something is done: `full` in `make faults`."""
    return full if FULL else short


def record(promise: str, figure: str, measured: str) -> None:
    """Add a row to the table."""
    _rows.append((promise, figure, measured))


def milliseconds(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and greatest of times."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered) * 1000:.0f}, p99 {p99 * 1000:.0f}, max {ordered[-1] * 1000:.0f} ms"


@pytest.fixture(autouse=True)
async def no_connection_stays() -> AsyncIterator[None]:
    """A test that fails leaves connections open."""
    yield
    await Connection.hang_up_all()


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """One worker and one gateway."""
    async with running_system(tmp_path) as running:
        yield running


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[System]:
    """Two workers behind one gateway."""
    async with running_system(tmp_path, workers=2) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if not _rows or not FULL:
        return
    lines = ["| promise | figure | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in _rows)]
    terminalreporter.write_line("\n" + "\n".join(lines))
    if exitstatus == 0:
        (ROOT / "docs" / "faults.md").write_text(_HEAD + "\n".join(lines) + "\n")


_HEAD = """\
# Under faults, overload and attack

What Vilix promises, and what `make faults` measured when it wrote this page: real processes on one machine, stopped,
frozen and killed by signals. The tests are in [tests/faults](../tests/faults); `make test` runs them with fewer repetitions.
Times include the test's own work on a machine that it shares with all processes.

"""
