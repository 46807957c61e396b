"""Errors of requests that match no endpoint."""

from __future__ import annotations

from services.gateway.errors import ApiError, ErrorKind, not_found


def no_such_path(method: str, path: str) -> ApiError:
    """Return a 404 for a path that does not exist."""
    where = f"{method} {path[:128]}"
    return not_found(f"There is nothing at {where}. The API is under /api, for example /api/models.")


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """Return a 405 for a path that does not allow the method. `allowed` lists those that it does, if known."""
    message = f"{method} is not allowed at {path[:128]}; {allowed or 'another method'} is."
    headers = {"Allow": allowed} if allowed else {}
    return ApiError(405, ErrorKind.INVALID_REQUEST, message, headers=headers)
