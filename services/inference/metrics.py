"""What the worker counts, for Prometheus. Labels are model ids and outcomes: few, and nothing about anybody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from vilix.inference.v1 import inference_service_pb2 as pb

_LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS: Final = Counter("vilix_worker_requests", "Generate calls, by how they ended.", ["model", "outcome"])
REQUESTS_IN_FLIGHT: Final = Gauge("vilix_worker_requests_in_flight", "Generate calls that run.", ["model"])
REQUEST_SECONDS: Final = Histogram(
    "vilix_worker_request_duration_seconds", "Whole Generate calls.", ["model"], buckets=_LATENCIES
)
FIRST_TOKEN_SECONDS: Final = Histogram(
    "vilix_worker_first_token_seconds", "From a call to its first token.", ["model"], buckets=_LATENCIES
)
TOKENS: Final = Counter("vilix_worker_tokens", "Tokens of prompts and answers.", ["model", "kind"])
DAMAGED_CHARACTERS: Final = Counter(
    "vilix_worker_damaged_characters",
    "Replacement characters in answers: bytes that the model wrote are no UTF-8, or tokens were lost.",
    ["model"],
)
ENGINE_READY: Final = Gauge("vilix_engine_ready", "Whether the engine answers.", ["model"])
ENGINE_IN_FLIGHT: Final = Gauge("vilix_engine_in_flight", "Requests that the engine works on.", ["model"])
ENGINE_QUEUED: Final = Gauge("vilix_engine_queued", "Requests that wait for a place in the engine.", ["model"])
ENGINE_SLOTS: Final = Gauge("vilix_engine_slots", "Places in the engine.", ["model"])
ENGINE_KV_CACHE_USE: Final = Gauge("vilix_engine_kv_cache_use", "Share of the KV cache that is in use.", ["model"])
ENGINE_TOKENS_PER_SECOND: Final = Gauge("vilix_engine_tokens_per_second", "Tokens generated lately.", ["model"])
ENGINE_CANCELLED: Final = Gauge("vilix_engine_cancelled_requests", "Requests cancelled since its start.", ["model"])

ENGINE_SLOW_STEPS: Final = Gauge(
    "vilix_engine_slow_steps", "Steps of the engine that took longer than a second, since its start.", ["model"]
)


def prepare(model_ids: Iterable[str]) -> None:
    """Show what has not happened yet as 0, so that the first time is a change that an alert can see."""
    for model_id in model_ids:
        DAMAGED_CHARACTERS.labels(model_id)
        REQUESTS_IN_FLIGHT.labels(model_id)


def note_engines(states: Iterable[pb.ModelStatus]) -> None:
    """Show the latest state of each engine."""
    for state in states:
        ENGINE_READY.labels(state.model).set(state.ready)
        ENGINE_IN_FLIGHT.labels(state.model).set(state.in_flight)
        ENGINE_QUEUED.labels(state.model).set(state.queued)
        ENGINE_SLOTS.labels(state.model).set(state.slots)
        ENGINE_TOKENS_PER_SECOND.labels(state.model).set(state.tokens_per_second)
        ENGINE_CANCELLED.labels(state.model).set(state.cancelled_total)
        ENGINE_SLOW_STEPS.labels(state.model).set(state.slow_steps_total)


def note_cache_use(model_id: str, share: float | None) -> None:
    """Show how full an engine's KV cache is; nothing where it is not known."""
    if share is not None:
        ENGINE_KV_CACHE_USE.labels(model_id).set(share)
        return
    with contextlib.suppress(KeyError):
        ENGINE_KV_CACHE_USE.remove(model_id)
