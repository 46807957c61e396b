"""GET /version: the version of the product, as vLLM tells it. It needs a key, because it helps who looks for a hole."""

from __future__ import annotations

from importlib import metadata
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.credential import read_openai
from services.gateway.endpoints.request_record import record_of
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key_cache import KeyCache

_VERSION: Final = metadata.version("vilix")


class Version:
    """The endpoint that shows the version."""

    def __init__(self, key_cache: KeyCache) -> None:
        """Answer the holders of keys."""
        self._key_cache: Final = key_cache

    async def version(self, request: Request) -> Response:
        """Return the version."""
        record_of(request).key_id = (await authenticate(read_openai(request.headers), self._key_cache)).key.id
        return Response(orjson.dumps({"version": _VERSION}), media_type="application/json")
