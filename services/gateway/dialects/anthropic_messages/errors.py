"""Errors in Anthropic's format."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from services.gateway.dialects import sse
from services.gateway.dialects.anthropic_messages.limits import limit_headers
from services.gateway.dialects.dialect import ErrorReply
from services.gateway.dialects.error_text import MESSAGE_ID_HEADER, ErrorText, error_text
from services.gateway.dialects.retry_headers import retry_headers
from services.gateway.errors import ApiError, ErrorKind
from services.runtime.messages.message import Message

REQUEST_ID_HEADER: Final = "request-id"
_TYPES: Final = {
    ErrorKind.INVALID_REQUEST: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.CONFLICT: "conflict_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.QUOTA: "rate_limit_error",
    ErrorKind.UNAVAILABLE: "overloaded_error",
    ErrorKind.TIMEOUT: "timeout_error",
    ErrorKind.SERVER_ERROR: "api_error",
}
_TOO_LONG: Final = frozenset(("context_exceeded", "context_full", "engine_context_exceeded", "engine_context_full"))
"""Messages about a prompt that does not fit the context."""


def render(error: ApiError, *, request_id: str) -> ErrorReply:
    """Return the error as the response to a request."""
    message = _text(error)
    headers = {
        "content-type": "application/json",
        REQUEST_ID_HEADER: request_id,
        **message.headers(),
        **(limit_headers(error.limits) if error.limits is not None else {}),
        **retry_headers(error),
        **error.headers,
    }
    return ErrorReply(error.status, headers, orjson.dumps(_document(error, message, request_id)))


def response(error: ApiError, *, request_id: str) -> Response:
    """Return the error as a Starlette response."""
    reply = render(error, request_id=request_id)
    return Response(reply.body, reply.status, reply.headers)


def event(error: ApiError, *, request_id: str) -> bytes:
    """Return the event that ends a failed stream, after a comment with the id of its message."""
    message = _text(error)
    data = orjson.dumps(_document(error, message, request_id))
    return sse.comment(f"{MESSAGE_ID_HEADER} {message.message_id}") + sse.event(data, name="error")


def _text(error: ApiError) -> ErrorText:
    """Return the message. Claude Code shortens its conversation when a message has Anthropic's words for too long."""
    parameters = error.message.parameters
    if error.message.id in _TOO_LONG and "limit" in parameters:
        tokens = parameters.get("prompt", parameters.get("value", ""))
        # One token at least must be generated.
        most = str(parameters["limit"])
        limit = str(int(most) - 1) if most.isdecimal() else most
        error.message = Message("prompt_too_long", value=tokens, limit=limit)
    return error_text(error)


def _document(error: ApiError, message: ErrorText, request_id: str) -> dict[str, Any]:
    details = {"field": message.field, "code": error.code}
    known = {name: value for name, value in details.items() if value}
    shown: dict[str, Any] = {"type": _TYPES[error.kind], "message": message.text}
    if known:
        shown["details"] = known
    return {"type": "error", "error": shown, "request_id": request_id}
