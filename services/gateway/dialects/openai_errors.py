"""Errors in OpenAI's format, which the gateway also uses for everything that belongs to no dialect."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

from services.gateway.dialects.dialect import ErrorReply
from services.gateway.dialects.error_text import ErrorText, error_text
from services.gateway.dialects.openai_error_codes import code_of
from services.gateway.dialects.openai_limits import limit_headers
from services.gateway.dialects.retry_headers import retry_headers
from services.gateway.errors import ApiError, ErrorKind

_TYPES: Final = {
    ErrorKind.INVALID_REQUEST: "invalid_request_error",
    ErrorKind.AUTHENTICATION: "authentication_error",
    ErrorKind.PERMISSION: "permission_error",
    ErrorKind.NOT_FOUND: "invalid_request_error",
    ErrorKind.CONFLICT: "invalid_request_error",
    ErrorKind.TOO_LARGE: "invalid_request_error",
    ErrorKind.RATE_LIMIT: "rate_limit_error",
    ErrorKind.QUOTA: "insufficient_quota",
    ErrorKind.UNAVAILABLE: "service_unavailable_error",
    ErrorKind.TIMEOUT: "server_error",
    ErrorKind.SERVER_ERROR: "server_error",
}


def body(error: ApiError) -> bytes:
    """Return the JSON document `{"error": {message, type, param, code}}`."""
    return _body(error, error_text(error))


def render(error: ApiError) -> ErrorReply:
    """Return the error as the response to a request."""
    message = error_text(error)
    headers = {
        "Content-Type": "application/json",
        **message.headers(),
        **(limit_headers(error.limits) if error.limits is not None else {}),
        **retry_headers(error),
        **error.headers,
    }
    return ErrorReply(error.status, headers, _body(error, message))


def response(error: ApiError) -> Response:
    """Return the error as a Starlette response."""
    reply = render(error)
    return Response(reply.body, reply.status, reply.headers)


def _body(error: ApiError, message: ErrorText) -> bytes:
    fields = {"type": _TYPES[error.kind], "param": message.field, "code": code_of(error)}
    return orjson.dumps({"error": {"message": message.text, **fields}})
