"""Parts of response objects that streams and whole responses share."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.limit_status import SpentBudget

_STOP_REASONS: Final = {
    pb.FINISH_REASON_STOP: "end_turn",
    pb.FINISH_REASON_LENGTH: "max_tokens",
    pb.FINISH_REASON_TOOL_CALLS: "tool_use",
    pb.FINISH_REASON_CONTENT_FILTER: "refusal",
}
_ID_PREFIX: Final = "toolu_"


def message_object(call: MessagesCall, head: ResponseHead, *, usage: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the object `message`. Every field is there, because Anthropic's schema demands it."""
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": call.generate.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        **fields,
        "usage": usage,
    }


def usage_object(usage: pb.Usage) -> dict[str, Any]:
    """Return the object `usage`. Tokens that came from the prefix cache are not part of `input_tokens`."""
    return {
        **delta_usage_object(usage),
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "inference_geo": None,
        "service_tier": "standard",
    }


def delta_usage_object(usage: pb.Usage) -> dict[str, Any]:
    """Return the object `usage` of the event `message_delta`."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return {
        "input_tokens": usage.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
    }


def stop_object(reason: pb.FinishReason.ValueType, stop_string: str, *, is_clamped: bool) -> dict[str, Any]:
    """Return the fields that say why the message ended. `is_clamped`: the context has limited `max_tokens`."""
    stop_reason = _STOP_REASONS[reason]
    if stop_string:
        stop_reason = "stop_sequence"
    elif reason == pb.FINISH_REASON_LENGTH and is_clamped:
        stop_reason = "model_context_window_exceeded"
    details = {"type": "refusal", "category": None, "explanation": None} if stop_reason == "refusal" else None
    return {"stop_reason": stop_reason, "stop_sequence": stop_string or None, "stop_details": details}


def budget_fields(budget: SpentBudget | None) -> dict[str, Any]:
    """Return the object `vilix` of a response that a spent budget has ended."""
    return {} if budget is None else {"vilix": {"ended_by": budget.limit, "scope": budget.scope}}


def text_block(text: str) -> dict[str, Any]:
    """Return a block of text."""
    return {"type": "text", "text": text, "citations": None}


def thinking_block(thinking: str, signature: str) -> dict[str, Any]:
    """Return a block of thinking."""
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def tool_use_block(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a block of a tool call, whose id has Anthropic's prefix."""
    block_id = _ID_PREFIX + call_id.removeprefix("call_")
    return {"type": "tool_use", "id": block_id, "name": name, "input": arguments, "caller": {"type": "direct"}}
