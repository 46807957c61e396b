from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from services.gateway.app import create_app
from services.gateway.endpoints import models
from services.gateway.settings import GatewaySettings


def test_an_unexpected_exception_is_a_500_in_openais_format_without_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(models, "_authenticate", broken)
    with TestClient(create_app(GatewaySettings()), raise_server_exceptions=False) as client:
        response = client.get("/api/models")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret plan" not in response.text
