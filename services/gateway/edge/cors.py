"""Cross-origin resource sharing: which pages of other origins may read responses.

docs/adr/0016 says why Starlette's CORSMiddleware is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.types import Send

RawHeaders = Sequence[tuple[bytes, bytes]]


class Cors:
    """The cross-origin headers of responses."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Allow pages of `origins`; `*` stands for all."""
        self._origins: Final = frozenset(origin.encode() for origin in origins)

    def headers(self, request_headers: Mapping[bytes, bytes], response_headers: RawHeaders) -> RawHeaders:
        """Return the headers that let a page read a response. All names are in lower case.

        The page may read every header of the response, because each API has its own.

        Args:
            request_headers: The headers of the request.
            response_headers: All other headers of the response.
        """
        origin = request_headers.get(b"origin")
        allows_all = b"*" in self._origins
        # A cache must not give the response to another origin, or to none, to a page that may read it.
        vary = [] if allows_all else [(b"vary", b"origin")]
        if origin is None or not (allows_all or origin in self._origins):
            return vary
        allowed = b"*" if allows_all else origin
        exposed = b", ".join(dict.fromkeys(name for name, _ in response_headers))
        return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", exposed), *vary]


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
