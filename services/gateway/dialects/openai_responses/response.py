"""The response object, its items and its usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.error_text import error_text
from services.gateway.dialects.openai_objects import budget_object
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.tool_names import INPUT
from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import SpentBudget

Seal = Callable[[str], str | None]
"""Seals reasoning; None if it is too long."""
_CODES: Final = {
    ErrorKind.INVALID_REQUEST: "invalid_prompt",
    ErrorKind.RATE_LIMIT: "rate_limit_exceeded",
    ErrorKind.QUOTA: "insufficient_quota",
}
_KEPT_CODES: Final = ("context_length_exceeded",)
"""Codes that clients tell apart."""


def response_id(hexadecimal: str) -> str:
    """Return the id of a response."""
    return f"resp_{hexadecimal}"


def id_of_response(item_id: str) -> str | None:
    """Return the id of the response that has an output item, from the item's id; None for another item."""
    _, separator, rest = item_id.partition("_")
    return response_id(rest[:-ITEM_DIGITS]) if separator and len(rest) > ITEM_DIGITS else None


ITEM_DIGITS: Final = 4


def item_id(prefix: str, response: str, index: int) -> str:
    """Return the id of an output item, which contains that of its response."""
    return f"{prefix}_{response.removeprefix('resp_')}{index:0{ITEM_DIGITS}x}"


def response_object(call: ResponsesCall, head: ResponseHead) -> dict[str, Any]:
    """Return the object of a response that has begun."""
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "model": call.generate.model,
        "output": [],
        "error": None,
        "usage": None,
        "store": bool(call.store),
        **call.echo,
    }


def usage_object(usage: pb.Usage) -> dict[str, Any]:
    """Return the object `usage`."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_object(error: ApiError) -> dict[str, str]:
    """Return the object `error` of a response that has failed."""
    code = error.code if error.code in _KEPT_CODES else _CODES.get(error.kind, "server_error")
    return {"code": str(code), "message": error_text(error).text}


def budget_fields(budget: SpentBudget | None) -> dict[str, Any]:
    """Return the additional fields of a response that a spent budget has ended."""
    return {} if budget is None else {"vilix": budget_object(budget)}


def custom_input(arguments_json: str) -> str:
    """Return the input of a custom tool from the arguments of the function that stands for it."""
    try:
        # Unlike `json`, it rejects halves of surrogate pairs, which no event can have, and deep nesting.
        value = orjson.loads(arguments_json)
    except orjson.JSONDecodeError:
        return arguments_json
    if isinstance(value, dict) and isinstance(value.get(INPUT), str):
        return str(value[INPUT])
    return arguments_json
