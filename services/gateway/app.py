"""The ASGI application: its routes, its lifespan, and the responses to errors outside of endpoints."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.dialects.anthropic_messages.dialect import AnthropicMessages, CountTokens
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.tokenize import Tokenize
from services.gateway.dialects.openai_completions.dialect import OpenAICompletions
from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.edge import error_format
from services.gateway.edge.access import Access
from services.gateway.edge.admin_listener import serving
from services.gateway.endpoints import page
from services.gateway.endpoints.admin import create_admin_app
from services.gateway.endpoints.api_route import PREFIXES, ApiRoute, api_paths
from services.gateway.endpoints.health import Health
from services.gateway.endpoints.models import Models
from services.gateway.endpoints.page import Page
from services.gateway.endpoints.post import Post
from services.gateway.endpoints.receipts import OwnRequest
from services.gateway.endpoints.responses import Cancel, InputItems, OneResponse, StoredResponseEndpoint
from services.gateway.endpoints.route_errors import no_such_path, wrong_method
from services.gateway.endpoints.usage import OwnUsage
from services.gateway.endpoints.version import Version
from services.gateway.errors import ApiError, ErrorKind, server_error
from services.gateway.operations.embed import EmbedEndpoint
from services.gateway.operations.generate import GenerateEndpoint
from services.gateway.operations.inference_parts import inference_parts
from services.gateway.operations.operation import Endpoint
from services.gateway.operations.respond import InputTokensEndpoint, RespondEndpoint
from services.gateway.operations.response_state import response_state
from services.gateway.operations.show_prompt import PromptEndpoint
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import Gateway, connected
from services.runtime.loop_watch import watched_loop
from services.runtime.messages.message import Message
from services.runtime.tracing.local_trace import Tracer


def create_app(
    settings: GatewaySettings, *, admin: socket.socket | None = None, tracer: Tracer | None = None
) -> ASGIApp:
    """Return the gateway as an ASGI application. The admin API is served on `admin`. `tracer` traces other requests."""
    site = Page(settings.site_directory, api_url=settings.public_api_url)
    posts: dict[str, Route] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_loop(seconds=settings.loop_watch_seconds))
            gateway = await stack.enter_async_context(connected(settings))
            if admin is not None:
                token = settings.admin_token.get_secret_value() if settings.admin_token else ""
                admin_app = create_admin_app(
                    gateway.link, gateway.fleet, gateway.live_requests, gateway.aliases, token=token
                )
                await stack.enter_async_context(serving(admin_app, admin, settings))
            all_routes = list(routes(gateway, site))
            app.router.routes.extend(all_routes)
            posts.update((route.path, route) for route in all_routes if isinstance(route.endpoint, Post))
            # Freeze startup objects, so that garbage collections do not scan them and pause streams.
            gc.collect()
            gc.freeze()
            yield

    app = Starlette(exception_handlers=dict(_HANDLERS), lifespan=lifespan)
    app.state.site = site
    app.router.redirect_slashes = False
    return Access(Shortcut(app, posts), origins=settings.origins(), tracer=tracer)


class Shortcut:
    """ASGI middleware that calls the POST endpoints without the router and the middleware of `app`.

    They need none of it: they render all of their errors themselves, and Access handles those that nobody expects.
    """

    def __init__(self, app: ASGIApp, posts: Mapping[str, Route]) -> None:
        """Call the endpoints in `posts`, by path, and `app` for everything else."""
        self._app: Final = app
        self._posts: Final = posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._posts.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
        else:
            scope["route"] = route
            await route.app(scope, receive, send)


def post_endpoints(gateway: Gateway) -> dict[str, Endpoint]:
    """Return the endpoints of the dialects, by path."""
    parts, state = inference_parts(gateway), response_state(gateway)
    signatures = ThinkingSignatures(gateway.key_ring, max_bytes=gateway.settings.max_body_bytes)
    return {
        "/chat/completions": GenerateEndpoint(
            OpenAIChat(reasoning_fields=gateway.settings.reasoning_fields.names()), parts
        ),
        "/completions": GenerateEndpoint(OpenAICompletions(), parts),
        "/responses": RespondEndpoint(parts, state),
        "/responses/input_tokens": InputTokensEndpoint(parts, state),
        "/messages": GenerateEndpoint(AnthropicMessages(signatures), parts),
        "/messages/count_tokens": PromptEndpoint(CountTokens(signatures), parts),
        "/embeddings": EmbedEndpoint(OpenAIEmbeddings(), gateway.fleet.embeddings),
        "/tokenize": PromptEndpoint(Tokenize(), parts),
    }


def get_endpoints(gateway: Gateway) -> dict[str, page.GetEndpoint]:
    """Return the other endpoints of the API, by path."""
    models = Models(gateway.fleet, gateway.aliases, gateway.key_cache)
    return {
        "/models": models.list_models,
        "/models/{model_id:path}": models.retrieve_model,
        "/requests/{request_id}": OwnRequest(gateway.link, gateway.key_cache).show,
        "/usage": OwnUsage(gateway.link, gateway.key_cache, gateway.tiers, gateway.prices).own_usage,
    }


def stored_responses(gateway: Gateway) -> dict[str, StoredResponseEndpoint]:
    """Return the endpoints of stored responses, by path."""
    state = response_state(gateway)
    keep_alive = gateway.settings.keep_alive
    return {
        "/responses/{response_id}": OneResponse(state, gateway.key_cache, keep_alive=keep_alive),
        "/responses/{response_id}/cancel": Cancel(state, gateway.key_cache),
        "/responses/{response_id}/input_items": InputItems(state, gateway.key_cache),
    }


def routes(gateway: Gateway, site: Page) -> Iterator[Route]:
    """Yield all routes of the public port, with the parts of `gateway` that each needs."""
    posts = {path: Post(endpoint, gateway) for path, endpoint in post_endpoints(gateway).items()}
    gets = get_endpoints(gateway)
    for prefix in PREFIXES:
        # These handle other methods themselves, in their API's error format.
        yield from (ApiRoute(prefix + path, post) for path, post in posts.items())
        yield from (ApiRoute(prefix + path, get, methods=["GET"]) for path, get in gets.items())
        yield from (ApiRoute(prefix + path, app) for path, app in stored_responses(gateway).items())
    health = Health(gateway.link, gateway.redis_watch, gateway.fleet)
    version = Version(gateway.key_cache)
    # What tools ask that know vLLM, SGLang or SageMaker.
    others = {"/health": health.readyz, "/ping": health.readyz, "/version": version.version}
    for prefix in PREFIXES:
        yield from (ApiRoute(prefix + path, get, methods=["GET"]) for path, get in others.items())
    yield Route("/healthz", health.healthz, methods=["GET"])
    yield Route("/readyz", health.readyz, methods=["GET"])
    yield from (Route(path, document, methods=["GET"]) for path, document in page.routes(site, gateway.fleet))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # the type that it is registered for
    return _rendered(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the response to an error of the router: an unknown path, or a method that a path does not allow."""
    assert isinstance(error, HTTPException)  # noqa: S101  # the type that it is registered for
    path = request.url.path
    if error.status_code == 404:
        site: Page = request.app.state.site
        if (page_for_browsers := site.missing(request)) is not None:
            return page_for_browsers
        api_error = no_such_path(request.method, path, list(api_paths(request.app.routes)))
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        api_error = wrong_method(request.method, path, ", ".join(sorted(allowed)))
    else:
        api_error = ApiError(
            error.status_code, ErrorKind.INVALID_REQUEST, Message.verbatim(str(error.detail)), headers=error.headers
        )
    return _rendered(request, api_error)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Return a 500. Starlette raises the error again, and the middleware Access logs it."""
    return _rendered(request, server_error(request.state.record.request_id))


def _rendered(request: Request, error: ApiError) -> Response:
    request_id = request.state.record.request_id
    return error_format.response(error, path=request.url.path, headers=request.headers, request_id=request_id)


_HANDLERS: Final = ((ApiError, _api_error), (HTTPException, _http_error), (Exception, _unexpected_error))
