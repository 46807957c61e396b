"""The ASGI application: its routes, its lifespan, and the responses to errors outside of endpoints."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.gateway.dialects import openai_errors
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.tokenize import Tokenize
from services.gateway.dialects.openai_completions.dialect import OpenAICompletions
from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.edge.access import Access
from services.gateway.edge.admin_listener import serving
from services.gateway.endpoints import page
from services.gateway.endpoints.admin import create_admin_app
from services.gateway.endpoints.health import Health
from services.gateway.endpoints.models import Models
from services.gateway.endpoints.page import Page
from services.gateway.endpoints.post import Post
from services.gateway.endpoints.route_errors import no_such_path, wrong_method
from services.gateway.endpoints.usage import OwnUsage
from services.gateway.errors import ApiError, ErrorKind, server_error
from services.gateway.operations.embed import EmbedEndpoint
from services.gateway.operations.generate import GenerateEndpoint
from services.gateway.operations.inference_parts import inference_parts
from services.gateway.operations.operation import Endpoint
from services.gateway.operations.show_prompt import PromptEndpoint
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import Gateway, connected
from services.runtime.loop_watch import watched_loop
from services.runtime.messages.message import Message

PREFIXES: Final = ("/api", "/v1")
"""Prefixes of the API's paths: ours, and the one that some tools require."""


def create_app(settings: GatewaySettings, *, admin: socket.socket | None = None) -> ASGIApp:
    """Return the gateway as an ASGI application. The admin API is served on `admin`."""
    site = Page(settings.site_directory, api_url=settings.public_api_url)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_loop(seconds=settings.loop_watch_seconds))
            gateway = await stack.enter_async_context(connected(settings))
            if admin is not None:
                token = settings.admin_token.get_secret_value() if settings.admin_token else ""
                admin_app = create_admin_app(gateway.link, token=token)
                await stack.enter_async_context(serving(admin_app, admin, settings))
            app.router.routes.extend(routes(gateway, site))
            # Freeze startup objects, so that garbage collections do not scan them and pause streams.
            gc.collect()
            gc.freeze()
            yield

    app = Starlette(exception_handlers=dict(_HANDLERS), lifespan=lifespan)
    app.router.redirect_slashes = False
    return Access(app, origins=settings.origins())


def post_endpoints(gateway: Gateway) -> dict[str, Endpoint]:
    """Return the endpoints of the dialects, by path."""
    parts = inference_parts(gateway)
    return {
        "/chat/completions": GenerateEndpoint(OpenAIChat(), parts),
        "/completions": GenerateEndpoint(OpenAICompletions(), parts),
        "/embeddings": EmbedEndpoint(OpenAIEmbeddings(), gateway.fleet.embeddings),
        "/tokenize": PromptEndpoint(Tokenize(), parts),
    }


def get_endpoints(gateway: Gateway) -> dict[str, page.GetEndpoint]:
    """Return the other endpoints of the API, by path."""
    models = Models(gateway.fleet, gateway.key_cache)
    return {
        "/models": models.list_models,
        "/models/{model_id:path}": models.retrieve_model,
        "/usage": OwnUsage(gateway.link, gateway.key_cache, gateway.tiers).own_usage,
    }


def routes(gateway: Gateway, site: Page) -> Iterator[Route]:
    """Yield all routes of the public port, with the parts of `gateway` that each needs."""
    posts = {path: Post(endpoint, gateway) for path, endpoint in post_endpoints(gateway).items()}
    gets = get_endpoints(gateway)
    for prefix in PREFIXES:
        # These handle other methods themselves, in their API's error format.
        yield from (Route(prefix + path, post) for path, post in posts.items())
        yield from (Route(prefix + path, get, methods=["GET"]) for path, get in gets.items())
    health = Health(gateway.link, gateway.redis_watch, gateway.fleet)
    yield Route("/healthz", health.healthz, methods=["GET"])
    yield Route("/readyz", health.readyz, methods=["GET"])
    yield from (Route(path, document, methods=["GET"]) for path, document in page.routes(site, gateway.fleet))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # the type that it is registered for
    return openai_errors.response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the response to an error of the router: an unknown path, or a method that a path does not allow."""
    assert isinstance(error, HTTPException)  # noqa: S101  # the type that it is registered for
    path = request.url.path
    if error.status_code == 404:
        api_error = no_such_path(request.method, path)
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        api_error = wrong_method(request.method, path, ", ".join(sorted(allowed)))
    else:
        api_error = ApiError(
            error.status_code, ErrorKind.INVALID_REQUEST, Message.verbatim(str(error.detail)), headers=error.headers
        )
    return openai_errors.response(api_error)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Return a 500. Starlette raises the error again, and the middleware Access logs it."""
    return openai_errors.response(server_error(request.state.record.request_id))


_HANDLERS: Final = ((ApiError, _api_error), (HTTPException, _http_error), (Exception, _unexpected_error))
