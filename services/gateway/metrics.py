"""What the gateway counts, for Prometheus. Labels are routes, model ids and causes: few, and nothing about anybody.

Of requests, `model` is none where none was named, and unknown where there is no such model.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS: Final = Counter("vilix_http_requests", "Answered requests.", ["route", "method", "status", "model"])
REQUEST_SECONDS: Final = Histogram(
    "vilix_http_request_duration_seconds",
    "From a request's headers to its last byte.",
    ["route", "model"],
    buckets=_LATENCIES,
)
REQUESTS_IN_FLIGHT: Final = Gauge("vilix_http_requests_in_flight", "Requests that are being answered.")
CONNECTIONS: Final = Gauge("vilix_http_connections", "Open connections.")
CONNECTIONS_REJECTED: Final = Counter(
    "vilix_http_connections_rejected",
    "Connections that were ended for what their client did or failed to do.",
    ["cause"],
)
BODY_BYTES: Final = Gauge(
    "vilix_http_body_bytes", "What request bodies in flight count of the budget of VILIX_BODIES_BYTES."
)
BODIES_REJECTED: Final = Counter(
    "vilix_http_bodies_rejected",
    "Request bodies that there was no room for, by whose budget was used up; slow ones had to make room for others.",
    ["cause"],
)
ANSWERS_IN_FLIGHT: Final = Gauge("vilix_answers_in_flight", "Answers that workers are giving.", ["model"])
ANSWERS: Final = Counter("vilix_answers", "Answers that workers began, by how they ended.", ["model", "outcome"])
ANSWER_SECONDS: Final = Histogram(
    "vilix_answer_duration_seconds", "From the call of a worker to the answer's end.", ["model"], buckets=_LATENCIES
)
FIRST_TOKEN_SECONDS: Final = Histogram(
    "vilix_first_token_seconds", "From the call of a worker to its first token.", ["model"], buckets=_LATENCIES
)
INTER_TOKEN_SECONDS: Final = Histogram(
    "vilix_inter_token_seconds", "Between two groups of tokens of an answer.", ["model"], buckets=_GAPS
)
TOKENS: Final = Counter("vilix_tokens", "Tokens of prompts and answers.", ["model", "kind"])
EMBEDDINGS: Final = Counter(
    "vilix_embeddings", "Embedding requests that workers took, by how they ended.", ["model", "outcome"]
)
RETRIES: Final = Counter("vilix_retries", "Requests that moved to another worker before their first token.", ["model"])
LIMITS_WAITING: Final = Gauge("vilix_limits_waiting", "Requests that wait for a slot of their key.")
LIMITS_REJECTED: Final = Counter("vilix_limits_rejected", "Requests that a key's limit refused.", ["limit"])
REDIS_AWAY: Final = Counter(
    "vilix_redis_away_decisions", "Decisions that were made without Redis, by what was decided.", ["decision"]
)
REDIS_REJECTED_WRITES: Final = Counter(
    "vilix_redis_rejected_writes",
    "Commands that Redis rejected because it takes no writes, by cause: full, read_only, persistence_failed or "
    "no_replicas.",
    ["cause"],
)
REDIS_REJECTS_WRITES: Final = Gauge("vilix_redis_rejects_writes", "Whether Redis refuses writes at the moment: 1 or 0.")
REDIS_EVICTS: Final = Gauge(
    "vilix_redis_evicts_keys",
    "Whether Redis's maxmemory-policy lets it evict keys and limits: 1 or 0, NaN where it does not tell.",
)
REDIS_PERSISTS: Final = Gauge(
    "vilix_redis_persists",
    "Whether Redis persists: 1, or 0 where its restart loses keys and limits, NaN where it does not tell.",
)
REDIS_MEMORY: Final = Gauge(
    "vilix_redis_used_memory_ratio",
    "Redis's used memory as a part of its maxmemory, of the fullest node; NaN without maxmemory.",
)
WORKERS: Final = Gauge("vilix_workers_serving", "Workers that serve a model, by their gRPC service.", ["service"])

MODEL_AVAILABLE: Final = Gauge(
    "vilix_model_available", "Whether some worker serves the model: 1 or 0, as /healthz says it.", ["model"]
)


def prepare() -> None:
    """Show what has not happened yet as 0, so that the first time is a change that an alert can see."""
    for cause in ("connections", "evicted", "header_bytes", "header_time", "body_time", "write_time", "malformed"):
        CONNECTIONS_REJECTED.labels(cause)
    for cause in ("process", "key", "slow"):
        BODIES_REJECTED.labels(cause)
    for decision in ("key_grace", "key_rejected", "limits_local", "limits_open", "limits_closed"):
        REDIS_AWAY.labels(decision)
    for rejection in ("full", "read_only", "persistence_failed", "no_replicas"):
        REDIS_REJECTED_WRITES.labels(rejection)
