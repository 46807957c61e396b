"""Counters and gauges that only the event loop changes, without the locks and checks of the library's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class LoopValue:
    """The value of one series, which its users change themselves."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Begin with 0."""
        self.value = 0


class LoopCounter(Collector):
    """A counter. A request changes a dozen of them, and the library's would take five calls each time."""

    _family: ClassVar[type[CounterMetricFamily] | type[GaugeMetricFamily]] = CounterMetricFamily

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        """Begin without series, or without labels with the only one."""
        self._name: Final = name
        self._documentation: Final = documentation
        self._labels: Final = tuple(labels)
        self._series: Final[dict[tuple[str, ...], LoopValue]] = {}
        if not labels:
            self.of()

    def of(self, *values: str) -> LoopValue:
        """Return the series of the values of the labels."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = LoopValue()
        return series

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metric. The thread of the metrics' server calls it."""
        (family,) = self.describe()
        for values, series in list(self._series.items()):
            family.add_metric(values, float(series.value))
        yield family

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metric without series."""
        yield self._family(self._name, self._documentation, labels=self._labels)


class LoopGauge(LoopCounter):
    """A gauge."""

    _family = GaugeMetricFamily
