"""Cross-origin resource sharing: which pages of other origins may read responses.

Starlette's CORSMiddleware is not used. It answers preflights with 200 and a text, and those of origins that are not
listed with a 400 in plain text; it adds `Vary: Origin` to responses that are the same for every origin. Clients of this
API get a 204 without a body, errors in JSON only, and `Vary` only where responses vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.types import Send

_EXPOSED: Final = (
    b"x-request-id, x-ignored-params, x-error-message-id, content-language, openai-processing-ms, "
    b"retry-after, retry-after-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


class Cors:
    """The cross-origin headers of responses."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Allow pages of `origins`; `*` stands for all."""
        self._origins: Final = frozenset(origin.encode() for origin in origins)

    def headers(self, request_headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response to a request with these headers, whose names are in lower case."""
        origin = request_headers.get(b"origin")
        if origin is None or not (b"*" in self._origins or origin in self._origins):
            return []
        allowed = b"*" if b"*" in self._origins else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
            *([] if allowed == b"*" else [(b"vary", b"origin")]),
        ]


def is_preflight(method: str, request_headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the request is a browser's preflight."""
    return method == "OPTIONS" and b"access-control-request-method" in request_headers


async def answer_preflight(send: Send) -> None:
    """Respond to a preflight with 204; `send` adds the allowed origin."""
    headers = [
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})
