"""Keys, bodies, routes, models, headers, cross-origin calls and logs of the gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.secret import draw
from tests.support.gateway import EXPECTED, running_gateway, until_answered, until_ready
from tests.support.messages import message_id_of
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage
from tests.support.waits import until

URL = "/api/chat/completions"


def assert_error(response: httpx.Response, status: int, error_type: str, code: str) -> dict[str, Any]:
    """Assert that a response has the format of every error."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["code"]) == (error_type, code)
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("header", "message_id"),
    [
        (None, "api_key_missing"),
        ("", "api_key_missing"),
        ("Basic dXNlcg==", "api_key_missing"),
        ("Bearer", "api_key_missing"),
        ("Bearer sk-wrong", "api_key_incomplete"),
        ("Bearer vlx_" + "0" * 36, "api_key_incomplete"),
        pytest.param("Bearer " + draw("s01"), "api_key_unknown", id="well formed"),
    ],
)
@pytest.mark.parametrize("path", ["/api/models", URL])
async def test_a_request_without_a_valid_key_gets_401(
    http: httpx.AsyncClient, header: str | None, message_id: str, path: str
) -> None:
    http.headers.pop("authorization")
    headers = {"authorization": header} if header is not None else {}
    response = await (http.get if path.endswith("models") else http.post)(path, headers=headers)
    assert_error(response, 401, "authentication_error", "invalid_api_key")
    assert message_id_of(response) == message_id
    assert not header or header.partition(" ")[2] not in response.text or not header.partition(" ")[2]


async def test_a_revoked_key_is_rejected_at_once(http: httpx.AsyncClient, redis_url: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="short-lived")
        headers = {"authorization": f"Bearer {secret}"}
        assert (await http.get("/api/models", headers=headers)).status_code == 200
        await keys.revoke(redis, "short-lived")
    assert_error(await http.get("/api/models", headers=headers), 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b'{"model": NaN}', b"\xff\xfe", b'{"a": "\xd8"}', b"[" * 5000, b'"text"', b"null", b"[]"],
)
async def test_a_body_that_is_not_a_json_object_gets_400(http: httpx.AsyncClient, raw: bytes) -> None:
    code = "invalid_type" if raw in (b'"text"', b"null", b"[]") else "invalid_json"
    assert_error(await http.post(URL, content=raw), 400, "invalid_request_error", code)


DEEP: dict[str, Any] = {}
for _ in range(900):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    "field", ["chat_template_kwargs", "metadata", "tools", "response_format", "zeta", "logit_bias"]
)
async def test_a_deeply_nested_body_gets_400(http: httpx.AsyncClient, field: str) -> None:
    body = {"model": "nothing", "messages": [{"role": "user", "content": "x"}], field: DEEP}
    response = await http.post(URL, json=body)
    if field == "zeta":
        assert_error(response, 404, "invalid_request_error", "model_not_found")
    else:
        assert response.json()["error"]["code"]
        assert_error(response, 400, "invalid_request_error", response.json()["error"]["code"])


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x" * 200])
async def test_a_compressed_body_is_rejected_with_the_reason(http: httpx.AsyncClient, encoding: str) -> None:
    content = gzip.compress(b'{"model": "m", "messages": []}')
    response = await http.post(URL, content=content, headers={"Content-Encoding": encoding})
    error = assert_error(response, 415, "invalid_request_error", "unsupported_content_encoding")
    assert encoding[:20] in error["message"]
    assert len(error["message"]) < 300


async def test_content_encoding_identity_is_accepted(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, content=b"{}", headers={"Content-Encoding": "Identity"})
    assert_error(response, 400, "invalid_request_error", "missing_required_parameter")


async def test_a_large_body_is_rejected_with_and_without_content_length(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    for large in (b" " * 200_000, pieces()):
        response = await http.post(URL, content=large)
        assert_error(response, 413, "invalid_request_error", "request_too_large")


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/metrics", "/" + "x" * 5000])
async def test_an_unknown_path_gets_404(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    error = assert_error(response, 404, "invalid_request_error", "unknown_url")
    assert message_id_of(response) == "path_not_found"
    assert path[:128] in error["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/api/chat/completion", "/api/chat/completions"),
        ("/api//chat/completions", "/api/chat/completions"),
        ("/openai/deployments/m/chat/completions", "/api/chat/completions"),
        ("/v1/v1/completions", "/api/completions"),
        ("/v1/embedding", "/api/embeddings"),
        ("/v2/models", "/api/models"),
        ("/v1/docs", "/api/docs"),
        ("/openapi.json", "/api/openapi.json"),
    ],
)
async def test_a_wrong_path_gets_404_that_names_the_right_one(http: httpx.AsyncClient, path: str, meant: str) -> None:
    response = await http.post(path, json={})
    error = assert_error(response, 404, "invalid_request_error", "unknown_url")
    assert message_id_of(response) == "path_elsewhere"
    assert f" {meant}?" in error["message"]


@pytest.mark.parametrize("prefix", ["", "/api", "/v1", "/api/v1"])
@pytest.mark.parametrize("end", ["", "/"], ids=["plain", "slash"])
async def test_tools_find_the_api_under_every_usual_path(
    http: httpx.AsyncClient, worker: ScriptedWorker, prefix: str, end: str
) -> None:
    worker.script = [[started(), content("a"), finish(), usage()]]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    assert (await http.post(f"{prefix}/chat/completions{end}", json=body)).json()["object"] == "chat.completion"
    assert (await http.get(f"{prefix}/models{end}")).json()["object"] == "list"
    assert (await http.get(f"{prefix}/models/{MODEL}{end}")).json()["id"] == MODEL
    assert (await http.get(f"{prefix}/version{end}")).json()["version"].count(".") == 2
    # What tools ask before they begin, without a key.
    http.headers.pop("authorization")
    assert [(await http.get(f"{prefix}/{name}{end}")).json() for name in ("health", "ping")] == [{"ready": True}] * 2


async def test_a_wrong_method_gets_405(http: httpx.AsyncClient) -> None:
    response = await http.get(URL)
    assert_error(response, 405, "invalid_request_error", "method_not_supported")
    assert response.headers["allow"] == "POST"
    assert_error(await http.delete("/api/models"), 405, "invalid_request_error", "method_not_supported")


async def test_the_header_of_azures_clients_is_accepted(http: httpx.AsyncClient, api_key: str) -> None:
    http.headers.pop("authorization")
    for path in ("/api/models", "/api/usage"):
        assert (await http.get(path, headers={"api-key": api_key})).status_code == 200
    response = await http.post(URL, json={}, headers={"api-key": api_key})
    assert_error(response, 400, "invalid_request_error", "missing_required_parameter")
    wrong = await http.post(URL, json={}, headers={"api-key": "wrong"})
    assert "`api-key: KEY`" in assert_error(wrong, 401, "authentication_error", "invalid_api_key")["message"]
    both = {"authorization": "Bearer wrong", "api-key": api_key}
    assert_error(await http.get("/api/models", headers=both), 401, "authentication_error", "invalid_api_key")


async def test_models_are_listed_and_described(http: httpx.AsyncClient) -> None:
    for prefix in ("/api", "/v1"):
        listing = (await http.get(f"{prefix}/models")).json()
        assert listing["object"] == "list"
        assert [(model["id"], model["object"], model["available"]) for model in listing["data"]] == [
            (EXPECTED, "model", False),
            (MODEL, "model", True),
        ]
    one = (await http.get(f"/api/models/{MODEL}")).json()
    assert (one["created"], one["owned_by"], one["context_length"]) == (1, "tests", 100)
    assert one["supported_parameters"] == ["n", "top_k"]
    assert_error(await http.get("/api/models/nothing"), 404, "invalid_request_error", "model_not_found")


async def test_health_needs_no_key_and_reports_redis_and_models(http: httpx.AsyncClient) -> None:
    http.headers.pop("authorization")
    health = (await http.get("/healthz")).json()
    assert health.pop("redis_eviction") in ("noeviction", "unknown"), "unknown before the first check"
    assert health.pop("redis_persistence") in ("off", "unknown")
    assert health == {"status": "ok", "redis": "ok", "models": {MODEL: True, EXPECTED: False}}
    assert (await http.get("/readyz")).json() == {"ready": True}


async def test_pages_of_other_origins_may_call_the_api(http: httpx.AsyncClient) -> None:
    preflight = await http.options(
        URL,
        headers={
            "origin": "https://example.org",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    rejected = await http.post(URL, headers={"origin": "https://example.org", "authorization": "Bearer x"})
    assert rejected.headers["access-control-allow-origin"] == "*"
    assert "x-request-id" in rejected.headers["access-control-expose-headers"]


async def test_a_request_is_one_line_of_json_without_content_or_secrets(
    http: httpx.AsyncClient, worker: ScriptedWorker, gateway_log: Path, api_key: str
) -> None:
    worker.script = [[started(), content("the answer text"), finish(), usage()]]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "the question text"}]}
    await http.post(URL, json=body, headers={"x-request-id": "log-test"})
    await until(lambda: '"log-test"' in gateway_log.read_text())
    log = gateway_log.read_text()  # noqa: ASYNC240  # a test
    lines = [json.loads(line) for line in log.splitlines() if '"log-test"' in line]
    assert len(lines) == 1
    line = lines[0]
    assert (line["status"], line["route"], line["model"], line["outcome"]) == (
        200,
        "/api/chat/completions",
        MODEL,
        "complete",
    )
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 2)
    assert line["key_id"].startswith("key_")
    assert "the question text" not in log
    assert "the answer text" not in log
    assert api_key not in log


async def test_without_redis_requests_get_503_and_health_reports_it(
    worker: ScriptedWorker, api_key: str, tmp_path: Path
) -> None:
    with running_gateway("redis://127.0.0.1:1/0", worker.address, tmp_path / "log") as (url, _):
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            await until_answered(url)
            response = await client.get("/api/models", headers={"authorization": f"Bearer {api_key}"})
            assert_error(response, 503, "service_unavailable_error", "service_unavailable")
            assert (await client.get("/healthz")).json()["redis"] == "unreachable"


async def test_sigterm_lets_a_running_stream_finish(
    worker: ScriptedWorker, redis_url: str, api_key: str, tmp_path: Path
) -> None:
    proceed = asyncio.Event()
    worker.script = [[started(), content("a")], proceed, [finish(), usage()]]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    with running_gateway(redis_url, worker.address, tmp_path / "log") as (url, process):
        headers = {"authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
            await until_ready(url)
            async with client.stream("POST", URL, json=body) as response:
                pieces = response.aiter_text()
                text = await anext(pieces)
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.3)
                assert process.poll() is None
                proceed.set()
                text += "".join([piece async for piece in pieces])
            assert text.endswith("data: [DONE]\n\n")
        assert await asyncio.to_thread(process.wait, 20) == 0
