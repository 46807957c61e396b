"""Chooses the API in whose format an error is rendered that no dialect renders, by its path and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from services.gateway.dialects import openai_errors
from services.gateway.dialects.anthropic_messages import errors as anthropic_errors
from services.gateway.dialects.dialect import ErrorReply
from services.gateway.errors import ApiError

ANTHROPIC_VERSION: Final = "anthropic-version"
"""The header that every client of Anthropic's API sends. Both live versions have the same responses."""
_MESSAGES: Final = re.compile(r"(?:/api|/v1|/api/v1|)/messages(?:/.*)?")
_MODELS: Final = re.compile(r"(?:/api|/v1|/api/v1|)/models(?:/.*)?")


def is_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request belongs to Anthropic's API. The names of `headers` are in lower case."""
    return bool(_MESSAGES.fullmatch(path) or (ANTHROPIC_VERSION in headers and _MODELS.fullmatch(path)))


def render(error: ApiError, *, path: str, headers: Mapping[str, str], request_id: str) -> ErrorReply:
    """Return the error as the response to a request."""
    if is_anthropic(path, headers):
        return anthropic_errors.render(error, request_id=request_id)
    return openai_errors.render(error)


def response(error: ApiError, *, path: str, headers: Mapping[str, str], request_id: str) -> Response:
    """Return the error as a Starlette response."""
    reply = render(error, path=path, headers=headers, request_id=request_id)
    return Response(reply.body, reply.status, reply.headers)
