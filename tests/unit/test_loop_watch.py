"""The event loop is measured in short intervals while the process works, and less often while it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.runtime import loop_watch
from services.runtime.loop_watch import IDLE_INTERVALS, INTERVAL_SECONDS, _Watch


class Clock:
    """A loop and the clocks of a process that uses a part of a processor, and wakes up late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = self.waited = 0.0
        self.delays: list[float] = []
        self.observed: list[float] = []
        self._measure: Callable[[], None] = lambda: None
        clocks = SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.used)
        monkeypatch.setattr(loop_watch, "time", clocks)
        monkeypatch.setattr(loop_watch.BLOCKED_SECONDS, "observe", self.observed.append)
        self.watch = _Watch(cast(asyncio.AbstractEventLoop, self), lambda: self.waited, INTERVAL_SECONDS)

    def call_later(self, delay: float, measure: Callable[[], None]) -> Any:
        self.delays.append(delay)
        self._measure = measure

    def run(self, *, share: float, late: float = 0.0) -> float:
        """Run until the next measurement. Return what it has observed."""
        self.now += self.delays[-1] + late
        self.used += self.delays[-1] * share + late
        self._measure()
        return self.observed[-1]


def test_an_idle_process_is_measured_less_often_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for _ in range(6):
        clock.run(share=0.01)
    assert clock.delays == [INTERVAL_SECONDS * factor for factor in (1, 2, 4, 8, 8, 8, 8)]
    clock.run(share=0.5)
    clock.run(share=0.5)
    assert clock.delays[-2:] == [INTERVAL_SECONDS, INTERVAL_SECONDS]
    assert clock.delays[-3] == INTERVAL_SECONDS * IDLE_INTERVALS


def test_a_block_is_as_long_as_the_process_was_late_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert clock.run(share=0.1) == 0
    assert clock.run(share=0.1, late=0.03) == pytest.approx(0.03)
    assert clock.delays[-1] == INTERVAL_SECONDS
    clock.waited += 0.02
    assert clock.run(share=0.1, late=0.03) == pytest.approx(0.01), "it waited for a processor"
