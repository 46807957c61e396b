"""The endpoints of stored responses: to retrieve, replay, delete and cancel one, and to list its input."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, Final

import orjson
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from services.gateway.credential import read_openai
from services.gateway.dialects import openai_errors
from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.exchange import Exchange
from services.gateway.endpoints.route_errors import no_such_path, wrong_method
from services.gateway.errors import ApiError, ErrorKind, bad_request, not_found, server_error
from services.gateway.operations.follow_response import follow
from services.gateway.operations.response_state import ResponseState
from services.gateway.quoting import shown
from services.gateway.stored_responses import lost_response
from services.gateway.stored_responses.store import StoreAwayError, StoredResponse
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key_cache import KeyCache
from services.runtime.messages.message import Message

_JSON: Final = {"content-type": "application/json"}
MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 20
MOST_FOLLOWERS: Final = 64
"""The most streams of stored responses that a key may read at the same time from one gateway."""
_ATTEMPTS: Final = 100
"""The most attempts to cancel a response between two of its events."""


class StoredResponseEndpoint(ABC):
    """Base of the endpoints of one stored response."""

    methods: tuple[str, ...]

    def __init__(self, state: ResponseState, key_cache: KeyCache) -> None:
        """Serve what is in `state`."""
        self._state: Final = state
        self._key_cache: Final = key_cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(scope, receive, send)
        with exchange.cleanup:
            try:
                self._check_method(scope)
                caller = await authenticate(read_openai(exchange.headers), self._key_cache)
                exchange.record.key_id = caller.key.id
                query = QueryParams(scope["query_string"])
                response_id = scope["path_params"]["response_id"]
                await self._serve(exchange, scope["method"], response_id, caller.key.id, query)
            except ApiError as error:
                await _fail(exchange, error)
            except ClientGoneError:
                pass
            except Exception:
                if not exchange.response.started:
                    await _fail(exchange, server_error(exchange.record.request_id))
                raise

    def _check_method(self, scope: Scope) -> None:
        method, response_id = scope["method"], scope["path_params"]["response_id"]
        if method not in self.methods and not response_id.startswith("resp_"):
            # What other servers have here, such as /responses/compact.
            raise no_such_path(method, scope["path"], ())
        if method not in self.methods:
            raise wrong_method(scope["method"], scope["path"], ", ".join(self.methods))

    @abstractmethod
    async def _serve(
        self, exchange: Exchange, method: str, response_id: str, owner: str, query: QueryParams
    ) -> None: ...

    async def _find(
        self, response_id: str, owner: str, *, with_document: bool = True, with_items: bool = False
    ) -> StoredResponse:
        """Return a response. Raises ApiError: 404, 503."""
        response = await self._state.find_current(
            response_id, owner, with_document=with_document, with_items=with_items
        )
        if response is None:
            raise _not_found(response_id)
        return response


class OneResponse(StoredResponseEndpoint):
    """GET and DELETE /responses/{id}."""

    methods = ("GET", "DELETE")

    def __init__(self, state: ResponseState, key_cache: KeyCache, *, keep_alive: float) -> None:
        """Send a comment after `keep_alive` seconds of silence in a stream."""
        super().__init__(state, key_cache)
        self._keep_alive: Final = keep_alive
        self._followers: Final[Counter[str]] = Counter()

    async def _serve(self, exchange: Exchange, method: str, response_id: str, owner: str, query: QueryParams) -> None:
        if method == "DELETE":
            await self._delete(exchange, response_id, owner)
            return
        if not _flag(query, "stream"):
            await _answer(exchange, (await self._find(response_id, owner)).document)
            return
        first = _number(query, "starting_after", -1, least=-1, most=2**31 - 1) + 1
        response = await self._find(response_id, owner, with_document=False)
        exchange.record.stream = True
        with self._followed(owner):
            await follow(exchange, self._state, response.id, owner, first=first, keep_alive=self._keep_alive)

    @contextmanager
    def _followed(self, owner: str) -> Iterator[None]:
        """Count a stream, which reads the store several times a second. Raises ApiError (429) for one too many."""
        if self._followers[owner] >= MOST_FOLLOWERS:
            message = Message("too_many_followers", value=MOST_FOLLOWERS)
            raise ApiError(429, ErrorKind.RATE_LIMIT, message, code="too_many_streams", retry_after=1.0)
        self._followers[owner] += 1
        try:
            yield
        finally:
            self._followers[owner] -= 1
            if not self._followers[owner]:
                del self._followers[owner]

    async def _delete(self, exchange: Exchange, response_id: str, owner: str) -> None:
        store = self._state.store
        try:
            if store is None or not await store.delete(response_id[:64], owner):
                raise _not_found(response_id)
        except StoreAwayError:
            raise self._state.unavailable() from None
        await _answer(exchange, {"id": response_id, "object": "response.deleted", "deleted": True})


class Cancel(StoredResponseEndpoint):
    """POST /responses/{id}/cancel."""

    methods = ("POST",)

    async def _serve(self, exchange: Exchange, method: str, response_id: str, owner: str, query: QueryParams) -> None:
        response = await self._find(response_id, owner)
        if not response.document["background"]:
            raise bad_request(Message("response_not_in_background", value=response_id[:64]))
        store = self._state.store
        for _ in range(_ATTEMPTS):
            if response.has_ended or store is None:
                break
            try:
                await lost_response.cancel(store, response, owner, self._state.defaults)
            except StoreAwayError:
                raise self._state.unavailable() from None
            response = await self._find(response_id, owner)
        await _answer(exchange, response.document)


class InputItems(StoredResponseEndpoint):
    """GET /responses/{id}/input_items."""

    methods = ("GET",)

    async def _serve(self, exchange: Exchange, method: str, response_id: str, owner: str, query: QueryParams) -> None:
        response = await self._find(response_id, owner, with_document=False, with_items=True)
        limit = _number(query, "limit", DEFAULT_LIMIT, least=1, most=MAX_LIMIT)
        order, after = query.get("order", "desc"), query.get("after")
        if order not in ("asc", "desc"):
            raise bad_request(Message("not_one_of", field="order", value=shown(order), choices="asc, desc"))
        await _answer(exchange, await asyncio.to_thread(_page, response, limit, order, after))


def _page(response: StoredResponse, limit: int, order: str, after: str | None) -> dict[str, Any]:
    """Return a page of the items of an input. Raises ApiError (404)."""
    items, known = [], set[str]()
    for index, item in enumerate(response.items):
        items.append(listed := _listed(item, response.id, index, known))
        known.add(listed["id"])
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if after is not None:
        if after not in ids:
            raise not_found(Message("item_not_found", field="after", value=shown(after)), code="item_not_found")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, **ends, "has_more": len(items) > limit}


_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


def _listed(item: dict[str, Any], response_id: str, index: int, known: Set[str]) -> dict[str, Any]:
    """Return an item of the input with an id and, of a message, with parts of content.

    An item without an id gets one, as does one with an id that is not a text or that another of the list has, because
    clients ask for the items after an id.
    """
    kind, item_id = item["type"], item.get("id")
    if not isinstance(item_id, str) or not item_id or item_id in known:
        item_id = f"{_PREFIXES.get(kind, 'item')}_in{index:04x}{response_id.removeprefix('resp_')}"
    listed = {**item, "id": item_id, "status": item.get("status") or "completed"}
    if kind == "message" and isinstance(item["content"], str):
        part = "output_text" if item["role"] == "assistant" else "input_text"
        more: dict[str, Any] = {"annotations": []} if part == "output_text" else {}
        listed["content"] = [{"type": part, "text": item["content"], **more}]
    return listed


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise bad_request(Message("not_one_of", field=name, value=shown(value), choices="true, false"))
    return value in ("true", "1")


def _number(query: QueryParams, name: str, default: int, *, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    try:
        value = int(text[:20])
    except ValueError:
        raise bad_request(Message("wrong_type", field=name, value=shown(text), expected="integer")) from None
    if not least <= value <= most:
        raise bad_request(Message("out_of_range", field=name, value=value, least=least, most=most))
    return value


def _not_found(response_id: str) -> ApiError:
    return not_found(Message("response_not_found", value=repr(response_id[:64])), code="response_not_found")


async def _answer(exchange: Exchange, document: dict[str, Any]) -> None:
    # A document may have megabytes.
    await exchange.response.respond(200, _JSON, await asyncio.to_thread(orjson.dumps, document))


async def _fail(exchange: Exchange, error: ApiError) -> None:
    reply = openai_errors.render(error)
    await exchange.response.respond(reply.status, reply.headers, reply.body)
