"""Checks the admin API's credential before any byte of a request's body is read, and bounds the size of the body.

A caller may send its name in the header X-Vilix-Actor, for the audit log: all callers have the same credential.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from services.gateway.credential import BEARER
from services.gateway.dialects import openai_errors
from services.gateway.errors import ApiError, too_large, unauthorized
from services.gateway.record import Outcome
from services.gateway.redis.audit_log import Origin, changes_from
from services.runtime.messages.message import Message

MAX_BODY_BYTES: Final = 64 * 2**10
_MOST_CHARACTERS: Final = 100
"""The most characters of a caller's name that the audit log keeps."""


class AdminGuard:
    """ASGI middleware that rejects requests without the credential, cheaply, and closes their connections."""

    def __init__(self, app: ASGIApp, *, token: str, open_path: str) -> None:
        """Guard `app` with the credential `token`.

        `open_path` is served without a credential, and without a body. Raises ValueError for an empty token.
        """
        self._app: Final = app
        if not token:
            raise ValueError("the admin API needs a token")
        self._digest: Final = _digest(token.encode())
        self._open_path: Final = open_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that has the credential, and reject any other."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"] == self._open_path:
                body: bytes | None = b""
            else:
                self._check(scope)
                body = await _bounded_body(scope, receive)
        except ApiError as error:
            await openai_errors.response(error.closing())(scope, receive, send)
            return
        if body is None:
            scope["state"]["record"].outcome = Outcome.CLIENT_GONE
            return
        with changes_from(_origin(scope)):
            await self._app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope) -> None:
        """Raise ApiError (401) for a request without the credential."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = header.partition(b" ")
        # Digests have the same length, so the time of the comparison tells nothing about the token.
        equal = secrets.compare_digest(_digest(token.strip(b" \t")), self._digest)
        if scheme.lower() != b"bearer" or not equal:
            message = Message("admin_credential_missing", header="Authorization: Bearer TOKEN")
            raise unauthorized(message, challenge=BEARER.challenge)


def _origin(scope: Scope) -> Origin:
    header = next((value for name, value in scope["headers"] if name == b"x-vilix-actor"), b"")
    name = "".join(filter(str.isprintable, header.decode(errors="replace")))[:_MOST_CHARACTERS].strip()
    address, _ = scope.get("client") or ("", 0)
    return Origin(f"admin API: {name}" if name else "admin API", address)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


async def _bounded_body(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body, or None if the client has disconnected. Raises ApiError (413) for one that is too large."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        more = message.get("more_body", False)
    return bytes(body)


def _too_large() -> ApiError:
    return too_large(Message("admin_body_too_large", limit=MAX_BODY_BYTES))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns the body, which was read already, and then the messages that follow it."""
    is_replayed = False

    async def replay() -> AsgiMessage:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
