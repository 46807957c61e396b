"""The Triton servers of a worker's models: one for all of them, or one for each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from services.worker.triton_client import TritonClient

DESCRIPTION: Final = (
    "Triton's gRPC endpoint, as HOST:PORT or unix:PATH; or comma-separated MODEL=ENDPOINT, where each model has a "
    "Triton of its own, so that a crash of one Triton affects one model."
)
_ENDPOINT: Final = re.compile(r"unix:.+|[^=]+:\d+")


def check_targets(value: str) -> str:
    """Return `value` if it has the form that DESCRIPTION describes. Raises ValueError otherwise."""
    for entry in value.split(","):
        model, _, endpoint = _split(entry)
        if not _ENDPOINT.fullmatch(endpoint) or ("," in value and not model):
            raise ValueError(f"{entry.strip()!r} is neither HOST:PORT or unix:PATH nor MODEL=HOST:PORT")
    return value


def targets(value: str, models: Iterable[str]) -> dict[str, str]:
    """Return the endpoint of each of `models`, by id. Raises ValueError for a model that has none."""
    entries = [_split(entry) for entry in value.split(",")]
    named = {model: endpoint for model, _, endpoint in entries if model}
    endpoints = {}
    for model in models:
        endpoint = named.get(model) if named else entries[0][2]
        if endpoint is None:
            raise ValueError(f"VILIX_TRITON={value} names no endpoint for the model {model}")
        endpoints[model] = endpoint
    return endpoints


class TritonClients(Mapping[str, TritonClient]):
    """The client of each model's Triton, by the model's id. Models of one Triton share a connection."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        """Create the clients. `targets` are endpoints by model id."""
        self._targets: Final = dict(targets)
        self._clients: Final = {target: TritonClient(target) for target in set(targets.values())}

    def __getitem__(self, model: str) -> TritonClient:
        """Return the client for a model. Raises KeyError."""
        return self._clients[self._targets[model]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the models."""
        return iter(self._targets)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self._targets)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


def _split(entry: str) -> tuple[str, str, str]:
    model, separator, endpoint = entry.strip().partition("=")
    # A path may hold the separator.
    if not separator or model.startswith("unix:"):
        return "", "", entry.strip()
    return model, separator, endpoint
