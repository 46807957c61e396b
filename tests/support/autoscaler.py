"""A simulation of pods, of the requests that they serve, and of Kubernetes' autoscaler, second by second.

The autoscaler follows the description of the HorizontalPodAutoscaler's algorithm: a tolerance of 10 %, stabilization
windows, and policies of pods per period.
https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

SYNC_SECONDS: Final = 15
"""Time between two decisions, and the age of the metrics."""
TOLERANCE: Final = 0.1


@dataclass(eq=False)
class Pod:
    """One pod, with the ends of the requests that it serves."""

    ready_at: float
    slots: int
    running: list[float] = field(default_factory=list)
    waiting: deque[float] = field(default_factory=deque)
    """The durations of the requests that wait for a slot."""
    draining_since: float | None = None

    @property
    def in_flight(self) -> int:
        """The number of its requests."""
        return len(self.running) + len(self.waiting)

    def step(self, now: float) -> int:
        """End and begin requests, and return the number of those that ended."""
        before = len(self.running)
        self.running = [end for end in self.running if end > now]
        ended = before - len(self.running)
        self.begin(now)
        return ended

    def begin(self, now: float) -> None:
        """Give free slots to waiting requests."""
        while self.waiting and len(self.running) < self.slots:
            self.running.append(now + self.waiting.popleft())


@dataclass
class Autoscaler:
    """The horizontal autoscaler with the values of a manifest."""

    behavior: dict[str, Any]
    target: float
    least: int
    most: int
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, value: float | None) -> int:
        """Return the number of pods for a sum of the metric; None stands for no data, which changes nothing."""
        if value is None:
            return current
        ratio = value / (self.target * current)
        wanted = current if abs(ratio - 1) <= TOLERANCE else math.ceil(value / self.target)
        self.recommendations.append((now, wanted))
        up, down = self.behavior["scaleUp"], self.behavior["scaleDown"]
        highest = min(self._since(now - up["stabilizationWindowSeconds"]))
        lowest = max(self._since(now - down["stabilizationWindowSeconds"]))
        result = min(max(current, highest), lowest) if highest > current else max(min(current, lowest), highest)
        result = min(max(result, self.least), self.most)
        result = min(result, current + self._allowed(now, up, sign=1))
        result = max(result, current - self._allowed(now, down, sign=-1))
        if result != current:
            self.changes.append((now, result - current))
        return result

    def _since(self, time: float) -> list[int]:
        return [wanted for when, wanted in self.recommendations if when >= time]

    def _allowed(self, now: float, rules: dict[str, Any], *, sign: int) -> int:
        (policy,) = rules["policies"]
        recent = [change for when, change in self.changes if when > now - policy["periodSeconds"]]
        return max(0, policy["value"] - sum(abs(change) for change in recent if change * sign > 0))


@dataclass
class Outcome:
    """The course of a simulation."""

    replicas: list[int]
    """The number of pods, each second."""
    waiting: list[int]
    """The number of requests that wait for a slot, each second."""
    ended: int
    begun: int
    longest_drain: float

    def reversals(self, begin: int, end: int) -> int:
        """Return how often the number of pods changed its direction between two seconds."""
        steps = [b - a for a, b in itertools.pairwise(self.replicas[begin:end]) if a != b]
        return sum((a > 0) is not (b > 0) for a, b in itertools.pairwise(steps))


def simulate(
    autoscaler: Autoscaler,
    metric: Callable[[list[Pod]], float | None],
    load: Callable[[int], float],
    *,
    seconds: int,
    slots: int = 64,
    loading: int = 300,
    mean_duration: float = 40.0,
    seed: int = 1,
) -> Outcome:
    """Serve a load, a number of simultaneous requests for each second, and scale the pods by a metric."""
    draw = random.Random(seed)
    replicas = max(autoscaler.least, math.ceil(load(0) / (slots * autoscaler.target)))
    pods = [Pod(0, slots) for _ in range(replicas)]
    outcome = Outcome([], [], 0, 0, 0.0)
    seen: deque[float | None] = deque([metric(pods)])
    for now in range(seconds):
        for pod in list(pods):
            outcome.ended += pod.step(now)
            if pod.draining_since is not None and not pod.in_flight:
                outcome.longest_drain = max(outcome.longest_drain, now - pod.draining_since)
                pods.remove(pod)
        able = [pod for pod in pods if pod.ready_at <= now and pod.draining_since is None]
        for _ in range(_poisson(draw, load(now) / mean_duration)):
            duration = min(draw.lognormvariate(math.log(mean_duration) - 0.5, 1.0), 900.0)
            chosen = min(able, key=lambda pod: pod.in_flight)
            chosen.waiting.append(duration)
            chosen.begin(now)
            outcome.begun += 1
        if now % SYNC_SECONDS == 0:
            seen.append(metric([pod for pod in pods if pod.ready_at <= now]))
            kept = [pod for pod in pods if pod.draining_since is None]
            wanted = autoscaler.decide(now, len(kept), seen.popleft())
            pods += [Pod(now + loading, slots) for _ in range(wanted - len(kept))]
            for pod in sorted(kept, key=lambda pod: -pod.ready_at)[: max(0, len(kept) - wanted)]:
                pod.draining_since = now
        outcome.replicas.append(sum(pod.draining_since is None for pod in pods))
        outcome.waiting.append(sum(len(pod.waiting) for pod in pods))
    outcome.ended += sum(pod.in_flight for pod in pods)
    return outcome


def _poisson(draw: random.Random, mean: float) -> int:
    limit, count, product = math.exp(-mean), 0, draw.random()
    while product > limit:
        count, product = count + 1, product * draw.random()
    return count
