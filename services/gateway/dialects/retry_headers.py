"""Headers that tell a client when to retry. Clients of all APIs read the same ones."""

from __future__ import annotations

import math

from services.gateway.errors import ApiError


def retry_headers(error: ApiError) -> dict[str, str]:
    """Return `Retry-After` in whole seconds, at least 1, the same in milliseconds, and `x-should-retry`."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after * 1000)))
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    return headers
