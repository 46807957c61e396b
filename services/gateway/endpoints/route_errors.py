"""Errors of requests that match no endpoint."""

from __future__ import annotations

from services.gateway.errors import ApiError, ErrorKind, not_found
from services.runtime.messages.message import Message


def no_such_path(method: str, path: str) -> ApiError:
    """Return a 404 for a path that does not exist."""
    return not_found(Message("path_not_found", method=method, path=path[:128]))


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """Return a 405 for a path that does not allow the method. `allowed` lists those that it does, if known."""
    message = Message(
        "method_not_allowed" if allowed else "method_not_allowed_here",
        method=method,
        path=path[:128],
        allowed=allowed,
    )
    headers = {"Allow": allowed} if allowed else {}
    return ApiError(405, ErrorKind.INVALID_REQUEST, message, headers=headers)
