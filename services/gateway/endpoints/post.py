"""POST endpoints: each passes its requests to the pipeline, and renders every error in the format of its API."""

from __future__ import annotations

from typing import Final

from starlette.types import Receive, Scope, Send

from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.exchange import Exchange
from services.gateway.endpoints.route_errors import wrong_method
from services.gateway.errors import ApiError, server_error
from services.gateway.operations.operation import Endpoint
from services.gateway.pipeline import serve
from services.gateway.record import CLIENT_CLOSED_REQUEST
from services.gateway.wiring import Gateway


class Post:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway) -> None:
        """Serve `endpoint` with the parts of `gateway`, as the pipeline uses them."""
        self._endpoint: Final = endpoint
        self._gateway: Final = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(scope, receive, send)
        if scope["method"] != "POST":
            await self._respond(exchange, wrong_method(scope["method"], scope["path"], "POST"))
            return
        record = exchange.record
        record.receipt.endpoint = getattr(scope.get("route"), "path", "")
        with exchange.cleanup:
            try:
                await serve(exchange, self._endpoint, self._gateway)
            except ApiError as error:
                await self._respond(exchange, error)
            except ClientGoneError:
                if not exchange.response.started:
                    await exchange.response.respond(CLIENT_CLOSED_REQUEST, {}, b"")
            except Exception:
                # The middleware Access logs it. Raising it makes a response that has begun end as incomplete.
                if not exchange.response.started:
                    await self._respond(exchange, server_error(exchange.record.request_id))
                raise
            finally:
                self._gateway.receipts.end(record)

    async def _respond(self, exchange: Exchange, error: ApiError) -> None:
        reply = self._endpoint.dialect.error(error, request_id=exchange.record.request_id)
        await exchange.response.respond(reply.status, reply.headers, reply.body)
