"""The gateway without Redis and workers, for tests of what it is made of: it can serve no request that needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from starlette.testclient import TestClient

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import Gateway


def unconnected() -> Gateway:
    """Return a gateway with default settings, whose other parts are mocks."""
    return cast(Gateway, MagicMock(settings=GatewaySettings()))


@contextmanager
def serving_unconnected() -> Iterator[TestClient]:
    """Yield a client of the gateway's application, which has begun its lifespan, with `unconnected` parts."""

    @asynccontextmanager
    async def connected(_: Any) -> AsyncIterator[Gateway]:
        yield unconnected()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.gateway.app.connected", connected)
        # The objects of the tests stay subject to garbage collection.
        patch.setattr("services.gateway.app.gc.freeze", lambda: None)
        with TestClient(create_app(GatewaySettings()), raise_server_exceptions=False) as client:
            yield client
