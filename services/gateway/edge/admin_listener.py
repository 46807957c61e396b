"""Serves the admin API on a separate address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from services.gateway.edge.http_protocol import protocol_for
from services.gateway.edge.quiet_server import QuietServer
from services.gateway.settings import GatewaySettings

MAX_CONNECTIONS = 64
MIN_TOKEN_LENGTH = 16
STOP_SECONDS = 5


class _Server(QuietServer):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the public server."""
        yield


def bind(settings: GatewaySettings) -> socket.socket | None:
    """Return a listening socket for the admin API, or None if it is switched off.

    Raises:
        ValueError: The token is too short.
        OSError: The address cannot be bound.
    """
    if not settings.admin_port:
        return None
    token = settings.admin_token.get_secret_value() if settings.admin_token else ""
    if len(token) < MIN_TOKEN_LENGTH:
        raise ValueError(
            f"VILIX_ADMIN_PORT is set, and VILIX_ADMIN_TOKEN has {len(token)} characters; "
            f"give it at least {MIN_TOKEN_LENGTH} that nobody can guess"
        )
    try:
        return socket.create_server((settings.admin_host, settings.admin_port))
    except OSError as error:
        where = f"{settings.admin_host}:{settings.admin_port}"
        raise OSError(f"cannot serve the admin API on {where}: {error.strerror}") from None


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, settings: GatewaySettings) -> AsyncIterator[None]:
    """Serve `app` inside the context, with the limits of the public listener and at most MAX_CONNECTIONS."""
    limits = settings.model_copy(update={"max_connections": min(MAX_CONNECTIONS, settings.max_connections)})
    config = uvicorn.Config(
        app,
        http=protocol_for(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.stop()
        await task
