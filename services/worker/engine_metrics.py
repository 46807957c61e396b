"""Metrics of the engines behind a worker, of either kind, which the engine itself cannot count: it dies with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from prometheus_client import REGISTRY, Counter
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector


class Cause(StrEnum):
    """The reason for which an engine that was ready is not."""

    SILENT = "silent"
    """It has not answered in time."""
    STALLED = "stalled"
    """It answers, and makes no progress with its requests."""
    DIED = "died"
    """Its process has died inside Triton."""
    AWAY = "away"
    """Triton cannot be reached, or no longer has the model: it has ended, or is about to."""
    FAILED = "failed"
    """It answers with another error, or an answer that is not understood."""


FAILURES: Final = Counter(
    "vilix_engine_failures",
    "Times that an engine which was ready became unavailable, by cause: silent, stalled, died, away or failed.",
    ["model", "cause"],
)
STARTS: Final = Counter(
    "vilix_engine_starts",
    "Times that an engine became ready: once at the start of the worker, and once after each failure.",
    ["model"],
)


def prepare(model_ids: Iterable[str]) -> None:
    """Export the counters as 0 before their first event, so that an alert can detect the first increase."""
    for model_id in model_ids:
        STARTS.labels(model_id)
        for cause in Cause:
            FAILURES.labels(model_id, cause)


class ReportedCounter(Collector):
    """A counter by model whose totals an engine reports. A total that falls is that of an engine that has restarted."""

    def __init__(self, name: str, documentation: str) -> None:
        """Register the counter, without series. `name` is without its suffix `_total`."""
        self._name: Final = name
        self._documentation: Final = documentation
        self._totals: Final[dict[str, float]] = {}
        REGISTRY.register(self)

    def report(self, model_id: str, total: float) -> None:
        """Set the total of a model's engine."""
        self._totals[model_id] = total

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric. The thread of the metrics' server calls it."""
        family = CounterMetricFamily(self._name, self._documentation, labels=["model"])
        for model_id, total in list(self._totals.items()):
            family.add_metric([model_id], total)
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric without series."""
        yield CounterMetricFamily(self._name, self._documentation, labels=["model"])
