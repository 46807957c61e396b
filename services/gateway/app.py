"""The application: routes, what they need, and what becomes of errors."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from services.gateway import chat_completions, embeddings, health, models, own_usage, page, prompts
from services.gateway.access import Access
from services.gateway.admin import create_admin_app
from services.gateway.admin_listener import serving
from services.gateway.dependencies import connected
from services.gateway.errors import ApiError, server_error
from services.gateway.hang_up import ClientGoneError
from services.gateway.page import Page
from services.gateway.settings import GatewaySettings
from services.loop_watch import watched_loop

PREFIXES: Final = ("/api", "/v1")
"""The API's own, and the one that some tools insist on."""
_CLIENT_CLOSED_REQUEST: Final = 499


def create_app(settings: GatewaySettings, *, admin: socket.socket | None = None) -> ASGIApp:
    """The gateway as an ASGI application. The admin API is served on `admin`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_loop())
            app.state.dependencies = await stack.enter_async_context(connected(settings))
            if admin is not None:
                await stack.enter_async_context(serving(create_admin_app(app.state.dependencies), admin))
            # What there is now stays: to look through it again and again for garbage would stop all streams meanwhile.
            gc.collect()
            gc.freeze()
            yield

    app = FastAPI(title="Vilix", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    for prefix in PREFIXES:
        app.include_router(chat_completions.router, prefix=prefix)
        app.include_router(embeddings.router, prefix=prefix)
        app.include_router(models.router, prefix=prefix)
        app.include_router(prompts.router, prefix=prefix)
        app.include_router(own_usage.router, prefix=prefix)
    app.include_router(health.router)
    app.include_router(page.router(Page(settings.site_directory, api_url=settings.public_api_url)))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGoneError, _client_gone)
    app.add_exception_handler(Exception, _fault)
    return Access(app, origins=settings.origins())


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # what it is registered for
    error.headers = {**getattr(request.state, "limit_headers", {}), **error.headers}
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what the router found: no such path, or no such method for it."""
    assert isinstance(error, HTTPException)  # noqa: S101  # what it is registered for
    if error.status_code == 404:
        where = f"{request.method} {request.url.path[:128]}"
        message = f"There is nothing at {where}. The API is under /api, for example /api/models."
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed at {request.url.path[:128]}; {allowed or 'another method'} is."
    else:
        message = str(error.detail)
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours. It goes on to `Access`, which logs it."""
    return server_error(request.state.request_id).response()


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
