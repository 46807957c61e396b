"""Only what is public is public: what a stranger without a key finds on the gateway's port."""

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

from services.gateway.app import create_app
from services.gateway.edge.access import Access
from services.gateway.edge.admin_guard import AdminGuard
from services.gateway.endpoints.admin import create_admin_app
from services.gateway.settings import GatewaySettings
from tests.faults.everything import ADMIN_TOKEN, Everything, running_everything
from tests.faults.system import Connection
from tests.support.fault_table import record

PUBLIC, KEY, ADMIN = "public", "key", "admin credential"
DECISIONS = {
    "/": PUBLIC,
    "/en": PUBLIC,
    "/api/docs": PUBLIC,
    "/api/docs.en": PUBLIC,
    "/api/openapi.json": PUBLIC,
    "/site/models.json": PUBLIC,
    "/site/{path:path}": PUBLIC,
    "/healthz": PUBLIC,
    "/readyz": PUBLIC,
    "/api/completions": KEY,
    "/v1/completions": KEY,
    "/api/chat/completions": KEY,
    "/api/embeddings": KEY,
    "/api/models": KEY,
    "/api/models/{model_id:path}": KEY,
    "/api/tokenize": KEY,
    "/api/usage": KEY,
    "/v1/chat/completions": KEY,
    "/v1/embeddings": KEY,
    "/v1/models": KEY,
    "/v1/models/{model_id:path}": KEY,
    "/v1/tokenize": KEY,
    "/v1/usage": KEY,
}
"""What every route of the public port asks for. A new route needs a line here, and with it somebody's decision."""
ADMIN_DECISIONS = {
    "/admin/v1/openapi.json": PUBLIC,
    "/admin/v1/keys": ADMIN,
    "/admin/v1/keys/{name_or_id}": ADMIN,
    "/admin/v1/keys/{name_or_id}/rotate": ADMIN,
    "/admin/v1/keys/{name_or_id}/usage": ADMIN,
}
ELSEWHERE = (
    "/metrics", "/api/metrics", "/admin", "/admin/v1", "/admin/v1/keys", "/admin/v1/openapi.json", "/docs", "/redoc",
    "/openapi.json", "/v2", "/v2/health/ready", "/v2/models/replay", "/v2/models/replay/infer", "/v2/repository/index",
    "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/logging", "/v2/trace/setting", "/debug",
    "/debug/pprof", "/.env", "/.git/config", "/server-status", "/actuator", "/api/keys", "/api/admin", "/tokenize",
    "/detokenize", "/version", "/ping", "/load", "/pause", "/reset_prefix_cache", "/start_profile", "/v1", "/api",
    "/site", "/site/", "/site/../services", "/site/%2e%2e/%2e%2e/settings.py", "/site/..%2f..%2fsettings.py",
    "/site//etc/passwd", "//etc/passwd", "/api/../metrics", "/API/models", "/api/models/../../metrics",
    "/vilix.inference.v1.InferenceService/Generate", "/vilix.inference.v1.InferenceService/GenerateMany",
    "/inference.GRPCInferenceService/ServerLive",
    "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    async with running_everything(tmp_path_factory.mktemp("public")) as running:
        yield running


def test_every_route_has_a_decision() -> None:
    app = create_app(GatewaySettings())
    assert set(paths(app)) == set(DECISIONS)
    assert set(paths(create_admin_app(None, token="any"))) == set(ADMIN_DECISIONS)  # type: ignore[arg-type]  # no request is served


async def test_a_stranger_gets_what_is_public_and_a_401_for_all_else(everything: Everything) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url, timeout=30) as stranger:
        public = 0
        for path, decision in DECISIONS.items():
            filled = path.replace("{path:path}", "mark.svg").replace("{model_id:path}", "replay")
            statuses = {method: (await stranger.request(method, filled)).status_code for method in METHODS}
            allowed = {status for status in statuses.values() if status != 405}
            assert allowed == ({200} if decision == PUBLIC else {401}), f"{path} ({decision}): {statuses}"
            if decision == PUBLIC:
                public += 1
                assert [method for method in METHODS if statuses[method] == 200] in (["GET"], ["GET", "HEAD"]), path
        for path in ELSEWHERE:
            for method in METHODS:
                answer = await stranger.request(method, path)
                assert answer.status_code in (401, 404, 405), f"{method} {path}: {answer.status_code}"
    record(
        "Only what is public is public",
        "health, the page, its model list and documents, and nothing else",
        f"{public} of {len(DECISIONS)} routes answer without a key; "
        f"{len(ELSEWHERE) * len(METHODS)} guesses at others found nothing",
        met=True,
    )


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", f"Bearer vlx_{'a' * 36}", f"Bearer {ADMIN_TOKEN}", "Basic YTpi"]
)
async def test_what_needs_a_key_is_not_answered_with_a_wrong_one(everything: Everything, authorization: str) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url, timeout=30) as stranger:
        for path in (path for path, decision in DECISIONS.items() if decision == KEY):
            method = "POST" if path.endswith(("completions", "embeddings", "tokenize")) else "GET"
            filled = path.replace("{model_id:path}", "replay")
            answer = await stranger.request(method, filled, headers={"Authorization": authorization})
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_the_admin_api_answers_nobody_without_its_credential(everything: Everything) -> None:
    key = everything.system.api_key
    for authorization in ("", f"Bearer {key}"):
        headers = {"Authorization": authorization}
        async with httpx.AsyncClient(base_url=f"http://{everything.admin_address}", headers=headers) as stranger:
            for path, decision in ADMIN_DECISIONS.items():
                filled = path.replace("{name_or_id}", "faults")
                allowed = {(await stranger.request(method, filled)).status_code for method in METHODS} - {405}
                assert allowed == ({200} if decision == PUBLIC else {401}), path


async def test_the_models_that_a_stranger_sees_say_nothing_about_keys_or_machines(everything: Everything) -> None:
    async with httpx.AsyncClient(base_url=everything.system.url) as stranger:
        listed = (await stranger.get("/site/models.json")).json()
        health = (await stranger.get("/healthz")).json()
        ready = (await stranger.get("/readyz")).json()
    shown = {"id", "available", "context_length", "capabilities", "supported_parameters", "dimensions", "descriptions"}
    assert listed["models"]
    assert all(set(model) <= shown for model in listed["models"])
    assert set(health) == {"status", "redis", "redis_eviction", "redis_persistence", "models"}
    assert set(ready) == {"ready"}


async def test_grpc_is_not_spoken_on_the_public_port(everything: Everything) -> None:
    async with grpc.aio.insecure_channel(everything.system.gateway.address) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(pb.ListModelsRequest(), timeout=10)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_metrics_and_the_admin_api_have_listeners_of_their_own(everything: Everything) -> None:
    public = everything.system.gateway.address
    assert len({public, everything.admin_address, *everything.metrics.values()}) == 2 + len(everything.metrics)
    async with httpx.AsyncClient() as operator:
        for address in everything.metrics.values():
            assert "vilix_" in (await operator.get(f"http://{address}/metrics")).text


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
async def test_an_offer_to_speak_another_protocol_is_ignored(everything: Everything, upgrade: bytes) -> None:
    connection = await Connection.open(everything.system.gateway.address)
    connection.writer.write(
        b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    )
    async with asyncio.timeout(10):
        assert (await connection.reader.readline()).startswith(b"HTTP/1.1 404 ")
    connection.hang_up()


def paths(app: object) -> Iterator[str]:
    """The paths of all routes of an application. A mounted application is one of them, whatever it holds."""
    while isinstance(app, Access | AdminGuard):
        app = app._app
    assert isinstance(app, Starlette)
    for route in iter_route_contexts(app.routes):
        yield route.path or repr(route)
