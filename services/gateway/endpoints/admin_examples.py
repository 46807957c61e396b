"""Examples of requests and responses for the admin API's document."""

from __future__ import annotations

from typing import Any, Final

_LIMITS: Final = {"rpm": 60, "tpm": None, "concurrency": 8, "daily_tokens": 1_000_000, "monthly_tokens": None}
_KEY: Final[dict[str, Any]] = {
    "name": "shop",
    "owner": "team-a",
    "expires": None,
    "tier": "standard",
    "models": ["qwen3-8b"],
    "limits": _LIMITS,
    "model_limits": {"qwen3-8b": {**_LIMITS, "rpm": 30}},
    "id": "k_7f3a",
    "created": 1_796_000_000,
    "revoked": None,
}
_NEW_KEY: Final = {**_KEY, "key": "vlx_EXAMPLE"}
_COUNTS: Final = {
    "requests": 120,
    "prompt_tokens": 48_000,
    "completion_tokens": 21_000,
    "cached_tokens": 9_000,
    "reasoning_tokens": 5_000,
}

CREATE: Final = {"limited": {"value": {"name": "shop", "owner": "team-a", "limits": {"rpm": 60, "concurrency": 8}}}}
CHANGE: Final = {"limit": {"value": {"limits": {"rpm": 120}}}}
ALIAS: Final = {"model": {"value": {"model": "qwen3-14b"}}}
ROTATE: Final = {"at_once": {"value": {"grace_seconds": 0}}}


def response(status: int, value: Any) -> dict[int | str, dict[str, Any]]:
    """Return the argument `responses` of a route whose response of `status` has the example `value`."""
    return {status: {"content": {"application/json": {"examples": {"example": {"value": value}}}}}}


CREATED: Final = response(201, _NEW_KEY)
LISTED: Final = response(200, [_KEY])
SHOWN: Final = response(200, _KEY)
ALIASES: Final = response(200, {"claude-qwen3-14b": "qwen3-14b", "fast": "qwen3-8b"})
REVOKED: Final = response(200, {"id": "k_7f3a", "name": "shop", "replicas": 2, "acknowledged": 2})
ACTIVITY: Final = response(
    200,
    {
        "requests_total": 1,
        "requests": [
            {
                "request_id": "req-1f2e3d4c5b6a798012345678",
                "key_id": "k_7f3a",
                "key_name": "shop",
                "owner": "team-a",
                "model": "qwen3-8b",
                "phase": "generating",
                "stream": True,
                "seconds": 3.214,
                "first_token_ms": 182.4,
                "prompt_tokens": 812,
                "completion_tokens": 143,
                "tokens_per_second": 47.2,
            }
        ],
        "models": [
            {
                "id": "qwen3-8b",
                "available": True,
                "engines": [
                    {
                        "worker": "10.0.4.7:9001",
                        "slots": 64,
                        "running": 1,
                        "queued": 0,
                        "kv_cache_use": 0.0312,
                        "tokens_per_second": 47.2,
                    }
                ],
            }
        ],
    },
)
AUDIT: Final = response(
    200,
    [
        {
            "time": 1_796_000_000.25,
            "actor": "admin API: sara@example.com",
            "address": "10.0.4.2",
            "action": "key.changed",
            "subject": "k_7f3a",
            "name": "shop",
            "before": {"limits": {"rpm": 60}},
            "after": {"limits": {"rpm": 120}},
        }
    ],
)
USAGE: Final = response(200, {"2026-11-29": _COUNTS, "2026-11-30": _COUNTS})
RECEIPT: Final = response(
    200,
    {
        "key": "k_7f3a",
        "key_name": "shop",
        "receipt": {
            "id": "req-1f2e3d4c5b6a798012345678",
            "created": 1_796_000_000.125,
            "endpoint": "/v1/chat/completions",
            "model": "qwen3-8b",
            "outcome": "broken off",
            "error": "server_failed",
            "timings_ms": {"authenticated": 0.4, "admitted": 1.6, "worker_called": 1.8, "settled": 40.2},
            "retries": 1,
            "addresses": ["10.0.4.20:9001", "10.0.4.21:9001"],
        },
    },
)
