"""The gateway's Prometheus metrics. Labels are routes, model ids and causes: few values, and no personal data.

The label `model` is none for a request that names no model, and unknown for one whose model does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge

from services.gateway.loop_counter import LoopCounter, LoopGauge
from services.gateway.loop_histogram import LoopHistogram

_LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_WAITS: Final = (0.001, *_LATENCIES)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
_GAPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS: Final = LoopCounter("vilix_http_requests", "Completed requests.", ["route", "method", "status", "model"])
REQUEST_SECONDS: Final = LoopHistogram(
    "vilix_http_request_duration_seconds",
    "Seconds from a request's headers to the last byte of its response.",
    ["route", "model"],
    buckets=_LATENCIES,
)
OUTCOMES: Final = LoopCounter(
    "vilix_request_outcomes",
    "POST requests that ended, by outcome as in the access log. The service level of availability counts them.",
    ["model", "outcome"],
)
REQUESTS_IN_FLIGHT: Final = LoopGauge("vilix_http_requests_in_flight", "Requests that are being served.")
CONNECTIONS: Final = Gauge("vilix_http_connections", "Open connections.")
CONNECTIONS_REJECTED: Final = Counter(
    "vilix_http_connections_rejected",
    "Connections that the gateway closed, by cause: too many (connections, or evicted while idle), header_bytes, "
    "header_time, body_time, write_time, or malformed HTTP.",
    ["cause"],
)
BODY_BYTES: Final = LoopGauge(
    "vilix_http_body_bytes", "Bytes of VILIX_BODIES_BYTES that request bodies in flight occupy."
)
BODIES_REJECTED: Final = Counter(
    "vilix_http_bodies_rejected",
    "Request bodies that were rejected because a budget had no capacity (process, key) or because they came too slowly "
    "while others waited for capacity (slow).",
    ["cause"],
)
GENERATIONS_IN_FLIGHT: Final = LoopGauge("vilix_generations_in_flight", "Generations that run on workers.", ["model"])
GENERATIONS: Final = LoopCounter(
    "vilix_generations",
    "Generations that ended, by outcome, and by the gRPC status with which the worker failed (empty without one).",
    ["model", "outcome", "worker_status"],
)
WORKER_CALL_SECONDS: Final = LoopHistogram(
    "vilix_worker_call_duration_seconds",
    "Seconds from the start of a call to a worker, for a generation or for embeddings, to its end.",
    ["model"],
    buckets=_LATENCIES,
)
FIRST_TOKEN_SECONDS: Final = LoopHistogram(
    "vilix_first_token_seconds",
    "Seconds from a request's headers to the first token of its generation, queues and retries included.",
    ["model"],
    buckets=_LATENCIES,
)
INTER_TOKEN_SECONDS: Final = LoopHistogram(
    "vilix_inter_token_seconds",
    "Seconds for each token after a generation's first ones: of tokens that arrive together, each has its share.",
    ["model"],
    buckets=_GAPS,
)
TOKENS: Final = LoopCounter("vilix_tokens", "Tokens of prompts and completions.", ["model", "kind"])
CACHED_TOKENS: Final = LoopCounter(
    "vilix_cached_tokens", "Tokens of prompts that came from the prefix cache, a part of all tokens.", ["model"]
)
REASONING_TOKENS: Final = LoopCounter(
    "vilix_reasoning_tokens", "Tokens of completions that are reasoning, a part of all tokens.", ["model"]
)
PROMPT_TOKENS: Final = LoopHistogram(
    "vilix_request_prompt_tokens", "Tokens of the prompt of each generation.", ["model"], buckets=_TOKENS
)
COMPLETION_TOKENS: Final = LoopHistogram(
    "vilix_request_completion_tokens", "Tokens that each generation has produced.", ["model"], buckets=_TOKENS
)
EMBEDDINGS: Final = LoopCounter(
    "vilix_embeddings",
    "Embedding requests that workers processed, by outcome, and by the gRPC status with which the worker failed (empty "
    "without one).",
    ["model", "outcome", "worker_status"],
)
RETRIES: Final = Counter("vilix_retries", "Requests that moved to another worker before their first token.", ["model"])
ADMISSION_SECONDS: Final = LoopHistogram(
    "vilix_admission_duration_seconds",
    "Seconds from the first attempt to admit a request to its admission: the call of Redis, and the queue of its key.",
    ["model"],
    buckets=_WAITS,
)
LIMITS_WAITING: Final = Gauge("vilix_limits_waiting", "Requests that wait in the queue of their key.")
LIMITS_REJECTED: Final = Counter("vilix_limits_rejected", "Requests that a key's limit rejected.", ["limit"])
REDIS_UP: Final = Gauge(
    "vilix_redis_up",
    "Whether the Redis of keys and limits (keys), or that of stored responses (responses), replies: 1 or 0.",
    ["store"],
)
REDIS_UP.labels("keys").set(1)
REDIS_COMMAND_SECONDS: Final = LoopHistogram(
    "vilix_redis_command_duration_seconds",
    "Seconds that commands to Redis took, by result: ok, rejected (a write), or failed (no reply, or an error).",
    ["result"],
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
UNSETTLED: Final = Gauge(
    "vilix_usage_unsettled_requests",
    "Requests that have ended, and whose usage Redis did not take yet. It is lost if the gateway ends before.",
)
REDIS_AWAY: Final = Counter("vilix_redis_away_decisions", "Decisions that were made without Redis.", ["decision"])
REDIS_REJECTED_WRITES: Final = Counter(
    "vilix_redis_rejected_writes",
    "Commands that Redis rejected because it takes no writes, by cause: full, read_only, persistence_failed or "
    "no_replicas.",
    ["cause"],
)
REDIS_REJECTS_WRITES: Final = Gauge("vilix_redis_rejects_writes", "Whether Redis rejects writes at the moment: 1 or 0.")
REDIS_EVICTS: Final = Gauge(
    "vilix_redis_evicts_keys",
    "Whether Redis's maxmemory-policy lets it evict keys and limits: 1 or 0; NaN if the policy is unknown.",
)
REDIS_PERSISTS: Final = Gauge(
    "vilix_redis_persists",
    "Whether Redis persists: 1, or 0 if a restart of it loses keys and limits; NaN if that is unknown.",
)
REDIS_MEMORY: Final = Gauge(
    "vilix_redis_used_memory_ratio",
    "Redis's used memory as a fraction of its maxmemory, on the fullest node; NaN without maxmemory.",
)
GATEWAYS: Final = Gauge(
    "vilix_gateways", "Gateways that share the Redis, as this one counted them last: they share the limits without it."
)
STORED_RESPONSE_BYTES: Final = Gauge(
    "vilix_stored_response_bytes",
    "Bytes of VILIX_STORE_BYTES that the stored responses of all keys occupied at the last look for revoked keys.",
)
WORKERS: Final = Gauge("vilix_workers_serving", "Workers that serve a model, by their gRPC service.", ["grpc_service"])

MODEL_AVAILABLE: Final = Gauge(
    "vilix_model_available", "Whether some worker serves the model: 1 or 0, as in /healthz.", ["model"]
)
MODEL_WORKERS: Final = Gauge("vilix_model_workers", "Workers that serve the model.", ["model"])
for _collector in list(vars().values()):
    if isinstance(_collector, LoopCounter | LoopHistogram):
        REGISTRY.register(_collector)
del _collector


def prepare(limits: Iterable[str]) -> None:
    """Export counters as 0 before their first event, so that the first increase is visible to alerts."""
    for cause in ("connections", "evicted", "header_bytes", "header_time", "body_time", "write_time", "malformed"):
        CONNECTIONS_REJECTED.labels(cause)
    for cause in ("process", "key", "slow"):
        BODIES_REJECTED.labels(cause)
    for decision in ("key_grace", "key_rejected", "limits_local", "limits_open", "limits_closed"):
        REDIS_AWAY.labels(decision)
    for rejection in ("full", "read_only", "persistence_failed", "no_replicas"):
        REDIS_REJECTED_WRITES.labels(rejection)
    for limit in limits:
        LIMITS_REJECTED.labels(limit)
    for result in ("ok", "rejected", "failed"):
        REDIS_COMMAND_SECONDS.of(result)
    for model in ("none", "unknown"):
        _prepare_outcomes(model)


def prepare_model(model: str) -> None:
    """Export the counters of a model as 0 before their first event, like `prepare`."""
    RETRIES.labels(model)
    FIRST_TOKEN_SECONDS.of(model)
    _prepare_outcomes(model)


def _prepare_outcomes(model: str) -> None:
    for outcome in ("complete", "failed", "broken off", "silent", "drained", "stopped", "budget", "client gone"):
        OUTCOMES.of(model, outcome)
