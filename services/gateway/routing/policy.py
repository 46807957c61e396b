"""Routing policies, which choose one of the workers that serve a model.

A policy is called for every request in the gateway's event loop, so it must be quick and must not wait. It sees the
requests of its own gateway alone; other gateways choose by themselves. If the chosen worker is unavailable, the policy
is asked once more, without that worker.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from services.gateway.routing.worker import Worker

W = TypeVar("W", bound=Worker[Any, Any])


class RoutedRequest(Protocol):
    """A request to a worker, as far as every policy can read it."""

    @property
    def model(self) -> str:
        """The id of the model."""
        ...


R_contra = TypeVar("R_contra", bound=RoutedRequest, contravariant=True)


class Policy(Protocol[R_contra]):
    """Chooses a worker by its load, or by anything in the request, such as the tenant or the beginning of the prompt.

    `R_contra` is the type of the requests: `GenerateRequest` or `EmbedRequest`, or `RoutedRequest` for a policy of all
    pools.
    """

    def __call__(self, candidates: Sequence[W], request: R_contra) -> W:
        """Return one of `candidates`: the workers that serve the model of the request. There is at least one."""
        ...


def least_load(candidates: Sequence[W], request: RoutedRequest) -> W:
    """Return the worker with the fewest requests of this gateway in flight, or a random one of several."""
    return min(candidates, key=lambda worker: (worker.in_flight, random.random()))  # noqa: S311  # a tie
