"""The worker's Prometheus metrics. Labels are model ids and outcomes: few values, and nothing about callers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

_LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS: Final = Counter("vilix_embeddings_requests", "Embed calls, by how they ended.", ["model", "outcome"])
REQUEST_SECONDS: Final = Histogram(
    "vilix_embeddings_request_duration_seconds", "Whole Embed calls.", ["model"], buckets=_LATENCIES
)
TEXTS: Final = Counter("vilix_embeddings_texts", "Texts of calls that were answered.", ["model"])
TOKENS: Final = Counter("vilix_embeddings_tokens", "Tokens of calls that were answered.", ["model"])
READY: Final = Gauge("vilix_embeddings_engine_ready", "Whether the engine answers.", ["model"])
IN_FLIGHT: Final = Gauge("vilix_embeddings_requests_in_flight", "Embed calls that run.", ["model"])
QUEUED: Final = Gauge("vilix_embeddings_queued_texts", "Texts that wait for a batch.", ["model"])

LOAD_RATIO: Final = Gauge(
    "vilix_embeddings_load_ratio",
    "Texts that wait or are embedded, divided by those that the engine takes at once. Autoscaling follows its sum.",
    ["model"],
)


def note_models(states: Iterable[pb.ModelStatus]) -> None:
    """Show the latest state of each model."""
    for state in states:
        READY.labels(state.model).set(state.ready)
        IN_FLIGHT.labels(state.model).set(state.in_flight)
        QUEUED.labels(state.model).set(state.queued)
