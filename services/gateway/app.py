"""The application: routes, what they need, and what becomes of errors."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from services.gateway.dependencies import connected
from services.gateway.edge.access import CLIENT_CLOSED_REQUEST, Access
from services.gateway.edge.admin_listener import serving
from services.gateway.edge.body_budget import BodyRelease
from services.gateway.edge.hang_up import ClientGoneError
from services.gateway.endpoints import page
from services.gateway.endpoints.admin import create_admin_app
from services.gateway.endpoints.chat_completions import create_chat_completion, create_completion
from services.gateway.endpoints.embeddings import create_embeddings
from services.gateway.endpoints.health import healthz, readyz
from services.gateway.endpoints.models import list_models, retrieve_model
from services.gateway.endpoints.own_usage import own_usage
from services.gateway.endpoints.page import Page
from services.gateway.endpoints.prompts import tokenize
from services.gateway.errors import ApiError, server_error
from services.gateway.settings import GatewaySettings
from services.runtime.loop_watch import watched_loop

PREFIXES: Final = ("/api", "/v1")
"""The API's own, and the one that some tools insist on."""
_API: Final = (
    ("POST", "/chat/completions", create_chat_completion),
    ("POST", "/completions", create_completion),
    ("POST", "/embeddings", create_embeddings),
    ("POST", "/tokenize", tokenize),
    ("GET", "/models", list_models),
    ("GET", "/models/{model_id:path}", retrieve_model),
    ("GET", "/usage", own_usage),
)


def create_app(settings: GatewaySettings, *, admin: socket.socket | None = None) -> ASGIApp:
    """The gateway as an ASGI application. The admin API is served on `admin`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_loop(seconds=settings.loop_watch_seconds))
            app.state.dependencies = await stack.enter_async_context(connected(settings))
            if admin is not None:
                token = settings.admin_token.get_secret_value() if settings.admin_token else ""
                admin_app = create_admin_app(app.state.dependencies, token=token)
                await stack.enter_async_context(serving(admin_app, admin, settings))
            # What there is now stays: to look through it again and again for garbage would stop all streams meanwhile.
            gc.collect()
            gc.freeze()
            yield

    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    for problem, handler in _PROBLEMS:
        app.add_exception_handler(problem, handler)
    for prefix in PREFIXES:
        for method, path, endpoint in _API:
            app.add_api_route(prefix + path, endpoint, methods=[method])
    app.add_api_route("/healthz", healthz, methods=["GET", "HEAD"])
    app.add_api_route("/readyz", readyz, methods=["GET", "HEAD"])
    for path, document in page.routes(Page(settings.site_directory, api_url=settings.public_api_url)):
        app.add_api_route(path, document, methods=["GET", "HEAD"])
    return Access(BodyRelease(app), origins=settings.origins())


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
    return Response(status_code=CLIENT_CLOSED_REQUEST)


_PROBLEMS: Final = (
    (ApiError, _api_error),
    (HTTPException, _http_error),
    (ClientGoneError, _client_gone),
    (Exception, _fault),
)
