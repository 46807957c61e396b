"""Routing policies: which of the workers that serve a model takes a call.

A policy is a function of the candidates, of which there is at least one, and the call. Another one is a function beside
`least_load`, given to the pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from services.gateway.routing.worker import Worker

W = TypeVar("W", bound=Worker[Any, Any])


class Call(Protocol):
    """What a policy may look at: the message that the worker will get."""

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
    """Return the worker that works on the fewest requests of this gateway; one of several by chance."""
    return min(candidates, key=lambda worker: (worker.in_flight, random.random()))  # noqa: S311  # a tie
