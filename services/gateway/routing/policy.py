"""Routing policies, which choose one of the workers that serve a model.

A policy is a function of the call and of the candidates, of which there is at least one. To add a policy, add a
function beside `least_load` and pass it to the pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from services.gateway.routing.worker import Worker

W = TypeVar("W", bound=Worker[Any, Any])


class Call(Protocol):
    """The worker's request, by which a policy can choose."""

    @property
    def model(self) -> str:
        """The id of the model."""
        ...


class Policy(Protocol):
    """Chooses a worker."""

    def __call__(self, candidates: Sequence[W], call: Call) -> W:
        """Return one of `candidates`."""
        ...


def least_load(candidates: Sequence[W], call: Call) -> W:
    """Return the worker with the fewest requests of this gateway in flight, or a random one of several."""
    return min(candidates, key=lambda worker: (worker.in_flight, random.random()))  # noqa: S311  # a tie
