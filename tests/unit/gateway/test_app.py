from __future__ import annotations

import pytest

from services.gateway.endpoints import models
from tests.support.unconnected_gateway import serving_unconnected


def test_an_unexpected_exception_is_a_500_in_openais_format_without_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(models, "_authenticate", broken)
    with serving_unconnected() as client:
        response = client.get("/api/models")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret plan" not in response.text
