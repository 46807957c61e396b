"""Parts of response objects that OpenAI's APIs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ResponseHead
from services.gateway.limit_status import SpentBudget

FINISH_REASONS: Final = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def head_object(kind: str, head: ResponseHead, model: str) -> dict[str, Any]:
    """Return the first fields of a response object, or of each chunk of a stream."""
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": head.fingerprint,
    }


def usage_object(usage: pb.Usage) -> dict[str, Any]:
    """Return the object `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def logprob_entries(logprobs: Iterable[pb.TokenLogprob]) -> list[dict[str, Any]]:
    """Return an entry with the alternatives of each token."""
    return [{**_logprob(entry), "top_logprobs": [_logprob(top) for top in entry.top]} for entry in logprobs]


def _logprob(entry: pb.TokenLogprob | pb.TopLogprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": list(entry.token_bytes)}


def budget_object(budget: SpentBudget) -> dict[str, str]:
    """Return the object `vilix` of a response that a spent budget has ended."""
    return {"ended_by": budget.limit, "scope": budget.scope}
