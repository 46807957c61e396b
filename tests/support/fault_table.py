"""A plugin: the table of what faults, overload and attacks cost. `make faults` judges it and writes it into docs/faults.md.

In `make test` the same tests run with fewer repetitions, and nothing is judged.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest

from tests.support.repository import ROOT

FULL: Final = os.environ.get("VILIX_FAULTS") == "full"
BUDGET_MINUTES: Final = 45
_WHOLE: Final = {ROOT / "tests" / part for part in ("faults", "contract/tenancy", "e2e/test_stack.py")}
"""What `make faults` runs."""
_BEGAN: Final = time.monotonic()


class Row(NamedTuple):
    """A row of the table."""

    promise: str
    figure: str
    measured: str
    met: bool

    def __str__(self) -> str:
        return f"| {self.promise} | {self.figure} | {self.measured} | {'yes' if self.met else '**no**'} |"


_rows: list[Row] = []
_unselected: list[pytest.Item] = []


def times(short: int, full: int) -> int:
    """How often something is done: `full` in `make faults`."""
    return full if FULL else short


def record(promise: str, figure: str, measured: str, *, met: bool) -> None:
    """Add a row to the table. `met` is whether the figure was kept: if not, `make faults` fails at its end.

    What holds on every machine is asserted before; what depends on the machine's speed is judged here alone.
    """
    _rows.append(Row(promise, figure, measured, met))


def percentile99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def milliseconds(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and greatest of times."""
    middle, p99, most = (1000 * value for value in (statistics.median(seconds), percentile99(seconds), max(seconds)))
    return f"p50 {middle:.0f}, p99 {p99:.0f}, max {most:.0f} ms"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember that some tests were left out."""
    _unselected.extend(items)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge the time that it took, and fail for a figure that was not met."""
    if not FULL:
        return
    if _is_whole(session.config):
        minutes = (time.monotonic() - _BEGAN) / 60
        in_time = minutes < BUDGET_MINUTES
        record("All of this, one after the other", f"under {BUDGET_MINUTES} minutes", f"{minutes:.1f} min", met=in_time)
    if session.exitstatus == pytest.ExitCode.OK and not all(row.met for row in _rows):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and what was missed; write the page, if this was all of it."""
    if not _rows or not FULL:
        return
    lines = ["| promise | figure | measured | met |", "|---|---|---|---|", *map(str, _rows)]
    terminalreporter.write_line("\n" + "\n".join(lines))
    for row in _rows:
        if not row.met:
            terminalreporter.write_line(f"MISSED {row.promise}: {row.measured}, not {row.figure}", red=True)
    if not any(terminalreporter.stats.get(outcome) for outcome in ("failed", "error", "skipped")):
        if _is_whole(config):
            (ROOT / "docs" / "faults.md").write_text(_HEAD + "\n".join(lines) + "\n" + _TAIL)
        else:
            terminalreporter.write_line("docs/faults.md stays as it is: this was a part of the tests")


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests were to be run, and not some that were picked."""
    asked = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    return asked >= _WHOLE and not _unselected


_HEAD: Final = """\
# Under faults, overload and attack

What Vilix promises, and what `make faults` measured when it wrote this page: real processes on one machine, stopped,
frozen and killed by signals. The tests are in [tests/faults](../tests/faults); `make test` runs them with fewer repetitions.
Times include the test's own work on a machine that it shares with all processes. A figure that is not met makes
`make faults` fail.

"""
_TAIL: Final = """
## Half an hour of mixed traffic

`make soak` measures what stays behind after streams, client disconnects, errors, images, tools, embeddings and changes of
keys; its figures are in [soak.md](soak.md).

![Memory, open files, threads and Redis keys over time](soak.svg)
"""
