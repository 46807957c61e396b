"""Checks the size of what a worker is asked, before it enters a connection that other requests share."""

from __future__ import annotations

from typing import Final

from services.gateway.errors import ApiError

ENVELOPE_BYTES: Final = 64 * 2**10
"""More than the messages add in which a request is sent."""


def check_size(size: int, max_message_bytes: int) -> None:
    """Raise ApiError (413) for a translated request of so many bytes, its images included, that no message has room for."""
    most = max_message_bytes - ENVELOPE_BYTES
    if size > most:
        raise ApiError(
            413,
            f"The request has {size} bytes, its images included; at most {most} can be given to a model. Shorten it, or send "
            "fewer or smaller images.",
            code="request_too_large",
        )
