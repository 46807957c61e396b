from __future__ import annotations

import httpx
import pytest

from services.gateway.app import create_app
from services.gateway.endpoints import models
from services.gateway.settings import GatewaySettings


async def test_an_unexpected_exception_is_a_500_in_openais_format_without_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(models, "gateway_of", broken)
    transport = httpx.ASGITransport(create_app(GatewaySettings()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.get("/api/models")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret plan" not in response.text
