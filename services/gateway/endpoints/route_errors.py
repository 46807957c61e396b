"""Errors of requests that match no endpoint."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from services.gateway.endpoints.api_route import OUR_PREFIX, PREFIXES
from services.gateway.errors import ApiError, ErrorKind, not_found
from services.runtime.messages.message import Message

_LONGEST_PATH: Final = 128
"""The most characters of a path that are quoted and compared."""
_SIMILARITY: Final = 0.8
"""From here on, a path is taken for a misspelt one. `/chat/completion` and `/chat/completions` have 0.97."""


def no_such_path(method: str, path: str, known: Sequence[str]) -> ApiError:
    """Return a 404 for a path that does not exist. It names the one of `known`, if any, that was probably meant."""
    path = path[:_LONGEST_PATH]
    meant = _meant_path(path, known)
    if meant is not None:
        return not_found(Message("path_elsewhere", method=method, path=path, meant=meant), code="unknown_url")
    return not_found(Message("path_not_found", method=method, path=path), code="unknown_url")


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """Return a 405 for a path that does not allow the method. `allowed` lists those that it does, if known."""
    message = Message(
        "method_not_allowed" if allowed else "method_not_allowed_here",
        method=method,
        path=path[:_LONGEST_PATH],
        allowed=allowed,
    )
    headers = {"Allow": allowed} if allowed else {}
    return ApiError(405, ErrorKind.INVALID_REQUEST, message, code="method_not_supported", headers=headers)


def _meant_path(path: str, known: Sequence[str]) -> str | None:
    """Return the path whose end `path` has, under another prefix, or the one that it resembles."""
    path = path.rstrip("/").lower()
    if path in PREFIXES:
        return None
    same_end = [each for each in known if path.endswith(each.removeprefix(OUR_PREFIX))]
    prefix = next((each for each in PREFIXES if path.startswith(f"{each}/")), "")
    similar = difflib.get_close_matches(OUR_PREFIX + path.removeprefix(prefix), known, n=1, cutoff=_SIMILARITY)
    return next(iter([*sorted(same_end, key=len, reverse=True), *similar]), None)
