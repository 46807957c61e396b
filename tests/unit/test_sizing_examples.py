"""The worked examples of docs/operations.md follow from the costs and formulas that the page states."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import pytest

TEXT: Final = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def cost(part: str, of: str = "") -> float:
    """Return the seconds of a core in a row of the table of costs, for each token or request."""
    match = re.search(rf"^\| {re.escape(part)}.*?([\d.]+) (µs|ms) of a core for each {of}", TEXT, re.MULTILINE)
    assert match, part
    return float(match[1]) * {"µs": 1e-6, "ms": 1e-3}[match[2]]


def stated(pattern: str) -> float:
    """Return the number in a phrase of the page."""
    match = re.search(pattern, TEXT)
    assert match, pattern
    return float(match[1])


def cell(row: str, column: int) -> list[float]:
    """Return the numbers of a cell of the examples, without those of a unit."""
    match = re.search(rf"^\| {re.escape(row)}[^|]*\|([^|]*)\|([^|]*)\|", TEXT, re.MULTILINE)
    assert match, row
    return [float(number.replace(",", "")) for number in re.findall(r"[\d,]*\d(?:\.\d+)?", match[column])]


@pytest.mark.parametrize(("requests_per_day", "column"), [(1e6, 1), (1e8, 2)])
def test_the_examples_add_up(requests_per_day: float, column: int) -> None:
    peak = requests_per_day / 86_400 * 3
    tokens, streams = peak * 300, peak * 10
    assert cell("requests per second", column) == [round(peak / 3), round(peak)]
    assert cell("tokens per second", column) == [round(tokens)]
    assert cell("streams at the peak", column) == [round(streams)]
    cores = tokens * cost("gateway |", "token") + peak * cost("gateway |", "request")
    assert cell("cores for gateways", column)[0] == round(cores, 2 if column == 1 else 1)
    assert cell("cores for gateways", column)[2] == math.ceil(cores / 0.6)
    workers = tokens * (cost("worker") + cost("Triton without the engine"))
    assert cell("cores for workers", column) == [round(workers, 2 if column == 1 else 0)]
    by_tokens, by_streams = math.ceil(tokens / 1400), math.ceil(streams / 44.8)
    assert cell("pods by tokens", column) == [by_tokens]
    assert cell("pods by streams", column) == [by_streams]
    assert cell("pods of the model", column) == [max(by_tokens, by_streams) + 1]
    requests, renewals = peak * cost("Redis"), streams / 2 * cost("Redis") / 2
    assert cell("cores of Redis", column)[:2] == [round(requests, 2), round(renewals, 2)]
    gateways = max(2, math.ceil(cores / 0.6))
    memory = cell("memory of the gateways", column)
    base, stream = stated(r"about (\d+) MB of memory") / 1e3, stated(r"(\d+) kB for each stream") / 1e6
    assert memory == [
        round(base * gateways, 1),
        round(stream * streams, 1) if column == 2 else round(stream * streams * 1e3),
    ]
    if column == 2:
        assert cell("cores of Redis", column)[2] == math.ceil((requests + renewals) / 0.6)


@pytest.mark.parametrize(("seconds", "before"), [(2, "so that one key can have about "), (5, "10 s: about ")])
def test_the_rate_of_one_key_includes_renewals(seconds: int, before: str) -> None:
    request = cost("Redis") + 10 / seconds * cost("Redis") / 2
    assert f"{before}{5 * round(0.12 / request):,}" in " ".join(TEXT.split())
