"""A pytest plugin for the table of fault tests. `make faults` judges the measurements and writes docs/faults.md.

In `make test` the same tests run with fewer repetitions, and nothing is judged.
"""

from __future__ import annotations

import os
import statistics
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest

from tests.support.repository import ROOT

FULL: Final = os.environ.get("VILIX_FAULTS") == "full"
BUDGET_MINUTES: Final = 45
LEAST_GROUP: Final = 3
"""The fewest rows that form a section."""
_WHOLE: Final = {ROOT / "tests" / part for part in ("faults", "contract/tenancy", "e2e/test_stack.py")}
"""The paths that `make faults` runs."""
_BEGAN: Final = time.monotonic()


class Row(NamedTuple):
    """A row of the table."""

    promise: str
    figure: str
    measured: str
    met: bool


_rows: list[Row] = []
_unselected: list[pytest.Item] = []


def times(short: int, full: int) -> int:
    """Return the number of repetitions: `full` in `make faults`."""
    return full if FULL else short


def record(promise: str, figure: str, measured: str, *, met: bool) -> None:
    """Add a row to the table. `met` tells whether the target was met: if not, `make faults` fails at its end.

    Tests assert what holds on every machine; only what depends on the machine's speed is judged here.
    """
    _rows.append(Row(promise, figure, measured, met))


def percentile99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def milliseconds(seconds: Sequence[float]) -> str:
    """Format the median, the 99th percentile and the maximum of times."""
    middle, p99, most = (1000 * value for value in (statistics.median(seconds), percentile99(seconds), max(seconds)))
    return f"p50 {middle:.0f}, p99 {p99:.0f}, max {most:.0f} ms"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Record which tests were deselected."""
    _unselected.extend(items)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge the duration of the run, and fail for a missed target."""
    if not FULL:
        return
    if _is_whole(session.config):
        minutes = (time.monotonic() - _BEGAN) / 60
        in_time = minutes < BUDGET_MINUTES
        record(
            "Duration of all fault tests, one after the other",
            f"under {BUDGET_MINUTES} minutes",
            f"{minutes:.1f} min",
            met=in_time,
        )
    if session.exitstatus == pytest.ExitCode.OK and not all(row.met for row in _rows):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and the missed targets; write the page if all tests were run."""
    if not _rows or not FULL:
        return
    terminalreporter.write_line("\n" + _table(_PROMISES, _rows))
    for row in _rows:
        if not row.met:
            terminalreporter.write_line(f"MISSED {row.promise}: {row.measured}, not {row.figure}", red=True)
    if not any(terminalreporter.stats.get(outcome) for outcome in ("failed", "error", "skipped")):
        if _is_whole(config):
            (ROOT / "docs" / "faults.md").write_text(page(_rows))
        else:
            terminalreporter.write_line("docs/faults.md is not written, because only a part of the tests was run")


def _is_whole(config: pytest.Config) -> bool:
    """Whether the run includes all tests."""
    paths = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    return paths >= _WHOLE and not _unselected


def page(rows: Sequence[Row]) -> str:
    """Return the text of docs/faults.md.

    Rows whose promises share the words before a colon form a section. A target that all rows of a section share is
    stated once above its table.
    """
    sizes = Counter(filter(None, map(_group, rows)))
    groups = [group for group, size in sizes.items() if size >= LEAST_GROUP]
    sections = [_HEAD, _table(_PROMISES, [row for row in rows if _group(row) not in groups])]
    for group in groups:
        cases = [row._replace(promise=row.promise.removeprefix(f"{group}: ")) for row in rows if _group(row) == group]
        targets = {case.figure for case in cases}
        sections.append(f"## {group}")
        if len(targets) == 1:
            sections.append(textwrap.fill(f"Target: {targets.pop()}.", 120, break_on_hyphens=False))
            sections.append(_table(("case", "measured", "met"), cases))
        else:
            sections.append(_table(("case", *_PROMISES[1:]), cases))
    return "\n\n".join([*sections, _TAIL])


def _group(row: Row) -> str:
    group, colon, _ = row.promise.partition(": ")
    return group if colon else ""


def _table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table whose first column has the promises of the rows, and the others what they are called."""
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        cells = {"target": row.figure, "measured": row.measured, "met": "yes" if row.met else "**no**"}
        lines.append([row.promise, *(cells[column] for column in columns[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_PROMISES: Final = ("promise", "target", "measured", "met")
_HEAD: Final = """\
# Under faults, overload and attack

This page lists what Vilix promises, and what `make faults` measured when it wrote the page: real processes on one
machine, stopped, frozen and killed by signals. The tests are in [tests/faults](../tests/faults); `make test` runs them
with fewer repetitions. Times include the work of the test itself, on a machine that it shares with all processes. A
missed target makes `make faults` fail."""
_TAIL: Final = """\
## Half an hour of mixed traffic

`make soak` measures what remains after streams, client disconnects, errors, images, tools, embeddings and changes of
keys; [soak.md](soak.md) has its figures.

![Memory, open files, threads and Redis keys over time](soak.svg)
"""
