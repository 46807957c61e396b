"""Anthropic's list of models, for requests with the header `anthropic-version`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request

from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_MOST: Final = 1000
_DEFAULT: Final = 20


def model_object(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return Anthropic's object of a model, besides the fields of `model`, which is OpenAI's."""
    context_length = model.get("context_length")
    return {
        **model,
        "type": "model",
        "display_name": model.get("alias_of", model["id"]),
        "created_at": datetime.fromtimestamp(model["created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": context_length,
        "max_tokens": context_length,
        "lifecycle": "active",
    }


def page_of(models: Sequence[Mapping[str, Any]], request: Request) -> dict[str, Any]:
    """Return the page of models that the parameters `limit`, `after_id` and `before_id` ask for. Raises ApiError."""
    objects = [model_object(model) for model in models if model.get("capabilities", {}).get("chat", True)]
    limit = _limit(request.query_params.get("limit"))
    ids = [model["id"] for model in objects]
    after, before = request.query_params.get("after_id"), request.query_params.get("before_id")
    start, stop = 0, len(objects)
    if after in ids:
        start = ids.index(after) + 1
    if before in ids:
        stop = ids.index(before)
        start = max(start, stop - limit)
    data = objects[start : min(stop, start + limit)]
    has_more = start > 0 if before in ids else start + limit < stop
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "has_more": has_more, "first_id": first, "last_id": last}


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT
    limit = int(text) if text.isdecimal() and len(text) <= len(str(_MOST)) else 0
    if not 1 <= limit <= _MOST:
        raise bad_request(Message("out_of_range", field="limit", value=shown(text), least=1, most=_MOST))
    return limit
