"""GET /requests/{id}: the receipt of a request that the caller's key has made in the last day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.credential import read_openai
from services.gateway.endpoints.request_record import record_of
from services.gateway.errors import not_found, unavailable
from services.gateway.quoting import shown
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.tenancy import receipts
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key_cache import KeyCache
from services.runtime.messages.message import Message

_OPERATORS: Final = ("addresses",)
"""Fields that only operators see."""


class OwnRequest:
    """The endpoint that shows the receipts of the caller's key."""

    def __init__(self, link: RedisLink, key_cache: KeyCache) -> None:
        """Read receipts through `link`."""
        self._link: Final = link
        self._key_cache: Final = key_cache

    async def show(self, request: Request) -> Response:
        """Return a receipt. Raises ApiError: 401, 404, 503."""
        key = (await authenticate(read_openai(request.headers), self._key_cache)).key
        record_of(request).key_id = key.id
        request_id: str = request.path_params["request_id"]
        try:
            found = await self._link.run(lambda redis: receipts.find(redis, [key.id], request_id))
        except RedisAwayError:
            raise unavailable(Message("receipt_not_read")) from None
        if key.id not in found:
            raise not_found(Message("request_not_found", value=shown(request_id)), code="request_not_found")
        return Response(orjson.dumps(document(found[key.id])), media_type="application/json")


def document(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt as the API shows it."""
    return {"object": "request", **{name: value for name, value in receipt.items() if name not in _OPERATORS}}
