"""What stands around every request: its id, the headers of every answer, its line in the log, and the last resort."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import metrics
from services.gateway.errors import server_error
from services.gateway.i18n.language import ACCEPTED

CLIENT_CLOSED_REQUEST: Final = 499
"""The status of a request whose client did not wait. It sees none."""
_SANE_ID: Final = re.compile(rb"(?!.*vlx_)[A-Za-z0-9._-]{1,128}")
"""An id goes through all logs: it must fit into a line, and be no key that was sent in the wrong place."""
_EXPOSED: Final = (
    b"x-request-id, x-ignored-params, content-language, openai-processing-ms, retry-after, retry-after-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_log: Final = logging.getLogger("vilix.access")


class Access:
    """Pure ASGI middleware, outermost. What a handler puts into `scope["state"]["log"]` joins the request's log line."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        """`origins` are those whose pages may call; `*` stands for all."""
        self._app: Final = app
        self._origins: Final = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        # Of several fields with one name the first counts, as it does everywhere else.
        headers = dict(reversed(scope["headers"]))
        given = headers.get(b"x-request-id", b"")
        request_id = given if _SANE_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}".encode()
        log: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=request_id.decode(), log=log)
        ACCEPTED.set(headers.get(b"accept-language", b"").decode("latin-1"))
        extra = [(b"x-request-id", request_id), *self._cors(headers)]
        status = 0
        metrics.REQUESTS_IN_FLIGHT.inc()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed = f"{(time.perf_counter() - began) * 1000:.0f}".encode()
                message["headers"] = [*message.get("headers", ()), *extra, (b"openai-processing-ms", elapsed)]
            await send(message)

        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await _preflight(send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception:  # noqa: BLE001  # the last resort
            _log.exception("request failed", extra={"request_id": request_id.decode()})
            if status == 0:
                await server_error(request_id.decode()).response()(scope, receive, send_with_headers)
        finally:
            # The template and not the path, in which a client may have put anything.
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - began
            metrics.REQUESTS_IN_FLIGHT.dec()
            model = scope["state"].get("model", "none")
            metrics.REQUESTS.labels(route, _method(scope["method"]), status, model).inc()
            metrics.REQUEST_SECONDS.labels(route, model).observe(seconds)
            log.setdefault("outcome", _outcome(status))
            _log.info(
                "request",
                extra={
                    "request_id": request_id.decode(),
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "duration_ms": round(seconds * 1000, 1),
                    **log,
                },
            )

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        origin = headers.get(b"origin")
        if origin is None or not (b"*" in self._origins or origin in self._origins):
            return []
        allowed = b"*" if b"*" in self._origins else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
            *([] if allowed == b"*" else [(b"vary", b"origin")]),
        ]


def _outcome(status: int) -> str:
    """Of a request of which nobody said more."""
    if status == CLIENT_CLOSED_REQUEST:
        return "client gone"
    if status == 0:
        return "stopped"
    return "complete" if status < 400 else "refused" if status < 500 else "failed"


def _method(name: str) -> str:
    return name if name in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE") else "other"


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})
