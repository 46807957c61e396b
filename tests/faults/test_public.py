"""The gateway's public port without a key: only public routes respond with content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.app import Shortcut
from services.gateway.edge.access import Access
from services.gateway.edge.admin_guard import AdminGuard
from services.gateway.endpoints.admin import create_admin_app
from services.gateway.endpoints.api_route import PREFIXES
from tests.faults.connection import Connection
from tests.faults.everything import ADMIN_TOKEN, Everything, running_everything
from tests.support.fault_table import record
from tests.support.unconnected_gateway import serving_unconnected

PUBLIC, REDIRECT, KEY, ADMIN = "public", "redirect", "key", "admin credential"
API_DECISIONS = {
    "/completions": KEY,
    "/chat/completions": KEY,
    "/responses": KEY,
    "/responses/input_tokens": KEY,
    "/responses/{response_id}": KEY,
    "/responses/{response_id}/cancel": KEY,
    "/responses/{response_id}/input_items": KEY,
    "/messages": KEY,
    "/messages/count_tokens": KEY,
    "/embeddings": KEY,
    "/models": KEY,
    "/models/{model_id:path}": KEY,
    "/requests/{request_id}": KEY,
    "/tokenize": KEY,
    "/usage": KEY,
    "/version": KEY,
    "/health": PUBLIC,
    "/ping": PUBLIC,
}
DECISIONS = {
    "/": PUBLIC,
    "/en": PUBLIC,
    "/api/docs": PUBLIC,
    "/api/docs.en": PUBLIC,
    "/api/changes": PUBLIC,
    "/api/changes.en": PUBLIC,
    "/api/openapi.json": PUBLIC,
    **dict.fromkeys(("/llms.txt", "/en.md", "/fa.md", "/api/docs.md", "/api/docs.en.md"), PUBLIC),
    **dict.fromkeys(("/api/changes.md", "/api/changes.en.md"), PUBLIC),
    **dict.fromkeys(("/en/", "/fa", "/fa/", "/docs", "/playground", "/index.html", "/favicon.ico"), REDIRECT),
    "/site/models.json": PUBLIC,
    "/site/{path:path}": PUBLIC,
    "/healthz": PUBLIC,
    "/readyz": PUBLIC,
    **{prefix + path: decision for prefix in PREFIXES for path, decision in API_DECISIONS.items()},
}
"""The credential that each route of the public port needs. A new route needs a line here, and so a decision."""
ADMIN_DECISIONS = {
    "/admin/v1/openapi.json": PUBLIC,
    "/admin/v1/activity": ADMIN,
    "/admin/v1/aliases": ADMIN,
    "/admin/v1/aliases/{alias:path}": ADMIN,
    "/admin/v1/audit": ADMIN,
    "/admin/v1/keys": ADMIN,
    "/admin/v1/keys/{name_or_id}": ADMIN,
    "/admin/v1/keys/{name_or_id}/rotate": ADMIN,
    "/admin/v1/keys/{name_or_id}/usage": ADMIN,
    "/admin/v1/requests/{request_id}": ADMIN,
}
ELSEWHERE = (
    "/metrics", "/api/metrics", "/admin", "/admin/v1", "/admin/v1/keys", "/admin/v1/openapi.json", "/redoc",
    "/openapi.json", "/v2", "/v2/health/ready", "/v2/models/replay", "/v2/models/replay/infer", "/v2/repository/index",
    "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/logging", "/v2/trace/setting", "/debug",
    "/debug/pprof", "/.env", "/.git/config", "/server-status", "/actuator", "/api/keys", "/api/admin", "/tokenize",
    "/detokenize", "/load", "/pause", "/reset_prefix_cache", "/start_profile", "/v1", "/api",
    "/site", "/site/", "/site/../services", "/site/%2e%2e/%2e%2e/settings.py", "/site/..%2f..%2fsettings.py",
    "/site//etc/passwd", "//etc/passwd", "/api/../metrics", "/API/models", "/api/models/../../metrics",
    "/vilix.inference.v1.InferenceService/Generate", "/vilix.inference.v1.InferenceService/GenerateMany",
    "/inference.GRPCInferenceService/ServerLive",
    "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)  # fmt: skip
POSTED = (
    "completions", "/embeddings", "/tokenize", "/responses", "/input_tokens", "/cancel", "/messages", "/count_tokens",
)  # fmt: skip
"""The ends of the paths that take only POST."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    async with running_everything(tmp_path_factory.mktemp("public")) as running:
        yield running


def test_every_route_has_a_decision() -> None:
    with serving_unconnected() as client:
        assert set(paths(client.app)) == set(DECISIONS)
    # No request is served.
    admin = create_admin_app(None, None, None, None, token="any")  # type: ignore[arg-type]
    assert set(paths(admin)) == set(ADMIN_DECISIONS)


async def test_without_a_key_only_public_routes_respond_with_content(everything: Everything) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url, timeout=30) as client:
        public = 0
        for path, decision in DECISIONS.items():
            filled = path.replace("{path:path}", "mark.svg").replace("{model_id:path}", "replay")
            filled = filled.replace("{response_id}", "resp_none")
            statuses = {method: (await client.request(method, filled)).status_code for method in METHODS}
            allowed = {status for status in statuses.values() if status != 405}
            expected = {PUBLIC: 200, REDIRECT: 308, KEY: 401}[decision]
            assert allowed == {expected}, f"{path} ({decision}): {statuses}"
            if decision == PUBLIC:
                public += 1
                assert [method for method in METHODS if statuses[method] == 200] in (["GET"], ["GET", "HEAD"]), path
        for path in ELSEWHERE:
            for method in METHODS:
                response = await client.request(method, path)
                assert response.status_code in (401, 404, 405), f"{method} {path}: {response.status_code}"
    record(
        "Access without a key",
        "only to health, the page, its list of models and its documents",
        f"{public} of {len(DECISIONS)} routes respond without a key; "
        f"{len(ELSEWHERE) * len(METHODS)} requests for other paths got 401, 404 or 405",
        met=True,
    )


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", f"Bearer vlx_{'a' * 36}", f"Bearer {ADMIN_TOKEN}", "Basic YTpi"]
)
async def test_routes_that_need_a_key_reject_wrong_ones(everything: Everything, authorization: str) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url, timeout=30) as client:
        for path in (path for path, decision in DECISIONS.items() if decision == KEY):
            method = "POST" if path.endswith(POSTED) else "GET"
            filled = path.replace("{model_id:path}", "replay")
            response = await client.request(method, filled, headers={"Authorization": authorization})
            assert response.status_code == 401, path
            error = response.json()["error"]
            code = error["type"] if "/messages" in path else error["code"]
            assert code == ("authentication_error" if "/messages" in path else "invalid_api_key")


async def test_the_admin_api_rejects_requests_without_its_credential(everything: Everything) -> None:
    key = everything.system.api_key
    for authorization in ("", f"Bearer {key}"):
        headers = {"Authorization": authorization}
        async with httpx.AsyncClient(base_url=f"http://{everything.admin_address}", headers=headers) as client:
            for path, decision in ADMIN_DECISIONS.items():
                filled = path.replace("{name_or_id}", "faults").replace("{alias:path}", "faults")
                allowed = {(await client.request(method, filled)).status_code for method in METHODS} - {405}
                assert allowed == ({200} if decision == PUBLIC else {401}), path


async def test_public_lists_of_models_contain_nothing_about_keys_or_machines(everything: Everything) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url) as client:
        listed = (await client.get("/site/models.json")).json()
        health = (await client.get("/healthz")).json()
        ready = (await client.get("/readyz")).json()
    allowed = {
        "id",
        "available",
        "context_length",
        "capabilities",
        "supported_parameters",
        "dimensions",
        "checkpoint",
        "descriptions",
    }
    assert listed["models"]
    assert all(set(model) <= allowed for model in listed["models"])
    assert set(health) == {"status", "redis", "redis_eviction", "redis_persistence", "models"}
    assert set(ready) == {"ready"}


async def test_the_public_port_does_not_serve_grpc(everything: Everything) -> None:
    async with grpc.aio.insecure_channel(everything.system.gateway.address) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(pb.ListModelsRequest(), timeout=10)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_metrics_and_the_admin_api_have_separate_ports(everything: Everything) -> None:
    public = everything.system.gateway.address
    assert len({public, everything.admin_address, *everything.metrics.values()}) == 2 + len(everything.metrics)
    async with httpx.AsyncClient() as operator:
        for address in everything.metrics.values():
            assert "vilix_" in (await operator.get(f"http://{address}/metrics")).text


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
async def test_an_upgrade_to_another_protocol_is_ignored(everything: Everything, upgrade: bytes) -> None:
    connection = await Connection.open(everything.system.gateway.address)
    connection.writer.write(
        b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    )
    async with asyncio.timeout(10):
        assert (await connection.reader.readline()).startswith(b"HTTP/1.1 404 ")
    connection.disconnect()


def paths(app: object) -> Iterator[str]:
    """Yield the paths of all routes of an application. A mounted application counts as one."""
    while isinstance(app, Access | AdminGuard | Shortcut):
        app = app._app
    assert isinstance(app, Starlette)
    for route in iter_route_contexts(app.routes):
        yield route.path or repr(route)
