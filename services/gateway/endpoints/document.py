"""The endpoints for models and usage in the API's document."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.dialects.openai_document import ERROR, ERRORS
from services.gateway.dialects.operation_document import (
    ContentDocument,
    LocalizedText,
    OperationDocument,
    PathParameter,
    ResponseDocument,
)
from services.gateway.endpoints.receipt_model import Receipt
from services.gateway.endpoints.response_model import KeyUsage, Model, ModelList

_MODEL: Final[dict[str, Any]] = {
    "id": "qwen3-8b",
    "object": "model",
    "created": 1_796_000_000,
    "owned_by": "Qwen",
    "available": True,
    "context_length": 40960,
    "capabilities": {"chat": True, "tools": True, "vision": False, "max_images": 0, "embeddings": False},
    "supported_parameters": ["max_tokens", "temperature", "top_p"],
    "engine": {"name": "trtllm", "version": "1.1.0"},
    "checkpoint": "Qwen/Qwen3-8B",
    "descriptions": {"en": "A model for chat.", "fa": "مدلی برای گفت‌وگو."},
}
_COUNTS: Final = {
    "requests": 120,
    "prompt_tokens": 48_000,
    "completion_tokens": 21_000,
    "cached_tokens": 9_000,
    "reasoning_tokens": 5_000,
    "cost": 18_600,
}
_USAGE: Final = {
    "object": "usage",
    "key": {"id": "k_7f3a", "name": "shop", "expires": None, "tier": "standard"},
    "today": {"period": "2026-11-30", "ends": "2026-12-01T00:00:00Z", **_COUNTS, "models": {"qwen3-8b": _COUNTS}},
    "month": {"period": "2026-11", "ends": "2026-12-01T00:00:00Z", **_COUNTS, "models": {"qwen3-8b": _COUNTS}},
    "limits": {
        "rpm": 60,
        "tpm": None,
        "concurrency": 8,
        "daily_tokens": 1_000_000,
        "monthly_tokens": None,
        "daily_cost": 5_000_000,
        "weekly_cost": None,
        "monthly_cost": None,
    },
    "remaining": {
        "rpm": 58,
        "tpm": None,
        "concurrency": 6,
        "daily_tokens": 929_800,
        "monthly_tokens": None,
        "daily_cost": 4_980_500,
        "weekly_cost": None,
        "monthly_cost": None,
    },
    "model_limits": {},
    "running": 2,
    "reserved_tokens": 1_200,
    "week": {"period": "2026-11-30", "ends": "2026-12-07T00:00:00Z", "cost": 18_600},
    "reserved_cost": 900,
    "currency": "USD",
    "decimals": 6,
}
_RECEIPT: Final = {
    "object": "request",
    "id": "req-1f2e3d4c5b6a798012345678",
    "created": 1_796_000_000.125,
    "endpoint": "/v1/chat/completions",
    "background": False,
    "stream": True,
    "model": "qwen3-8b",
    "alias": None,
    "outcome": "complete",
    "status": 200,
    "error": None,
    "finish_reasons": ["stop"],
    "timings_ms": {
        "authenticated": 0.4,
        "admitted": 1.6,
        "worker_called": 1.8,
        "first_token": 96.2,
        "last_token": 1204.7,
        "settled": 1204.9,
    },
    "worker_ms": {"queued": 3.1, "prefill": 81.0, "decode": 1108.3, "first_token": 92.5, "render": 4.2},
    "usage": {"prompt_tokens": 812, "completion_tokens": 96, "cached_tokens": 640, "reasoning_tokens": 0},
    "cost": 93,
    "currency": "USD",
    "decimals": 6,
    "worker": "vilix-qwen3-8b-0",
    "engine": "trtllm",
    "engine_version": "1.2.1",
    "retries": 0,
    "parameters": "5f0c0a8e1b2d3c4f",
}

OPERATIONS: Final = (
    OperationDocument(
        method="get",
        path="/models",
        id="listModels",
        summary=LocalizedText("List the models", "فهرست مدل‌ها"),
        response=ResponseDocument(
            description=LocalizedText(
                "All models, those that are not available at the moment included.",
                "همهٔ مدل‌ها، حتی آن‌هایی که اکنون در دسترس نیستند.",
            ),
            contents=(
                ContentDocument(
                    models=(ModelList,),
                    examples={
                        "models": {
                            "object": "list",
                            "data": [
                                _MODEL,
                                {
                                    "id": "qwen3-14b",
                                    "object": "model",
                                    "created": 0,
                                    "owned_by": "vilix",
                                    "available": False,
                                },
                            ],
                        }
                    },
                ),
            ),
        ),
        errors={"4XX": ERROR},
    ),
    OperationDocument(
        method="get",
        path="/models/{id}",
        id="retrieveModel",
        summary=LocalizedText("Describe one model", "مشخصات یک مدل"),
        parameters=(
            PathParameter(name="id", description=LocalizedText("The model's id.", "شناسهٔ مدل."), example="qwen3-8b"),
        ),
        response=ResponseDocument(
            description=LocalizedText("The model.", "مدل."),
            contents=(ContentDocument(models=(Model,), examples={"model": _MODEL}),),
        ),
        errors={"4XX": ERROR},
    ),
    OperationDocument(
        method="get",
        path="/requests/{id}",
        id="getRequest",
        summary=LocalizedText("Show the receipt of a request", "رسید یک درخواست"),
        description=LocalizedText(
            "What was done for a request of the last day, how long each stage took, and what it has used, without "
            "prompt and answer. A request that another key made is unknown here. It counts against no limit.",
            "برای یک درخواست روز گذشته چه شد، هر مرحله چقدر طول کشید و چه مصرف شد، بدون پرامپت و پاسخ. درخواست کلیدهای "
            "دیگر اینجا ناشناخته است. از هیچ سقفی کم نمی‌کند.",
        ),
        parameters=(
            PathParameter(
                name="id",
                description=LocalizedText(
                    "The request's id: the header `x-request-id` of its response.",
                    "شناسهٔ درخواست: هدر `x-request-id` پاسخ آن.",
                ),
                example="req-1f2e3d4c5b6a798012345678",
            ),
        ),
        response=ResponseDocument(
            description=LocalizedText("The receipt.", "رسید."),
            contents=(ContentDocument(models=(Receipt,), examples={"receipt": _RECEIPT}),),
        ),
        errors=ERRORS,
    ),
    OperationDocument(
        method="get",
        path="/usage",
        id="getUsage",
        summary=LocalizedText("Show what a key used, and what is left", "مصرف و باقی‌ماندهٔ کلید"),
        response=ResponseDocument(
            description=LocalizedText(
                "The usage of the key that asks. It counts against no limit.",
                "مصرف همان کلیدی که می‌پرسد. از هیچ سقفی کم نمی‌کند.",
            ),
            contents=(ContentDocument(models=(KeyUsage,), examples={"usage": _USAGE}),),
        ),
        errors=ERRORS,
    ),
)
