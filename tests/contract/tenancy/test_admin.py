"""The admin API: its listener, its credential, and all operations on keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.contract.tenancy.conftest import ADMIN_TOKEN, URL, body, client_of
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.messages import message_id_of
from tests.support.waits import until


@pytest.fixture
async def admin(gateways: list[str], admin_port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(f"http://127.0.0.1:{admin_port}", ADMIN_TOKEN) as client:
        yield client


async def test_a_key_is_created_changed_rotated_and_revoked(
    admin: httpx.AsyncClient, gateways: list[str], worker: CountingWorker
) -> None:
    made = await admin.post("/admin/v1/keys", json={"name": "web", "owner": "team", "limits": {"rpm": 9}})
    assert made.status_code == 201
    secret, key_id = made.json()["key"], made.json()["id"]
    listed = await admin.get("/admin/v1/keys")
    assert key_id in {key["id"] for key in listed.json()}
    assert secret not in listed.text, "a secret is shown once"
    async with client_of(gateways[1], secret) as client:
        assert (await client.post(URL, json=body(4))).status_code == 200
        changed = await admin.patch("/admin/v1/keys/web", json={"limits": {"rpm": 1, "tpm": 500}})
        assert changed.json()["limits"]["rpm"] == 1
        assert changed.json()["owner"] == "team"
        assert (await client.post(URL, json=body(4))).status_code == 429
        rotated = await admin.post("/admin/v1/keys/web/rotate", json={"grace_seconds": 0})
        assert rotated.status_code == 201
        assert (await client.get("/api/models")).status_code == 401
        client.headers["Authorization"] = f"Bearer {rotated.json()['key']}"
        assert (await client.get("/api/models")).status_code == 200
        by_model = (await admin.get("/admin/v1/keys/web/usage", params={"by": "model"})).json()
        assert by_model["small"]["completion_tokens"] == 4
        revoked = await admin.delete("/admin/v1/keys/web")
        assert revoked.json() == {"id": key_id, "name": "web", "replicas": 0, "acknowledged": 0}
        assert (await client.get("/api/models")).status_code == 401
    assert (await admin.get(f"/admin/v1/keys/{key_id}/usage")).status_code == 200, "a revoked key's usage stays"


async def test_activity_shows_each_running_request_with_its_key_phase_and_tokens(
    admin: httpx.AsyncClient, gateways: list[str], worker: CountingWorker
) -> None:
    made = (await admin.post("/admin/v1/keys", json={"name": "busy", "owner": "team", "tier": "patient"})).json()

    async def running() -> list[dict[str, Any]]:
        activity = (await admin.get("/admin/v1/activity")).json()
        assert activity["requests_total"] == len(activity["requests"])
        return [request for request in activity["requests"] if request["key_id"] == made["id"]]

    async def phases() -> list[str]:
        return [request["phase"] for request in await running()]

    worker.going.clear()
    async with client_of(gateways[0], made["key"]) as client, asyncio.TaskGroup() as tasks:
        # The tier lets one request run at a time.
        headers = {"X-Request-Id": "first"}
        tasks.create_task(client.post(URL, json=body(500, stream=True), headers=headers))
        # The worker reports with its first message that the generation has begun.
        await until(lambda: has(phases, ["generating"]))
        tasks.create_task(client.post(URL, json=body(1)))
        await until(lambda: has(phases, ["generating", "queued"]))
        worker.pace = 0.01
        worker.going.set()
        await until(lambda: has(lambda: rates(running), True))
        first = (await running())[0]
        assert (first["request_id"], first["key_name"], first["owner"]) == ("first", "busy", "team")
        assert (first["model"], first["stream"], first["prompt_tokens"]) == ("small", True, len("hello"))
        assert first["completion_tokens"] > 1
        assert first["first_token_ms"] > 0
        worker.pace = 0.0
    assert await running() == []


async def has(read: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await read() == expected


async def rates(running: Callable[[], Awaitable[list[dict[str, Any]]]]) -> bool:
    return bool((await running())[0]["tokens_per_second"])


async def test_activity_shows_the_slots_queue_and_cache_of_each_engine(
    admin: httpx.AsyncClient, gateways: list[str], worker: CountingWorker
) -> None:
    models = {model["id"]: model for model in (await admin.get("/admin/v1/activity")).json()["models"]}
    assert models["small"]["available"]
    assert models["small"]["engines"] == [
        {
            "worker": worker_address(models),
            "slots": 8,
            "running": 3,
            "queued": 2,
            "kv_cache_use": 0.25,
            "tokens_per_second": 41.5,
        }
    ]
    assert models["large"]["engines"] == []


def worker_address(models: dict[str, Any]) -> str:
    address = str(models["small"]["engines"][0]["worker"])
    assert address.startswith("127.0.0.1:")
    return address


@pytest.mark.parametrize("authorization", ["", "Bearer wrong-token-wrong-token", f"Basic {ADMIN_TOKEN}"])
async def test_a_request_without_the_credential_gets_401(admin: httpx.AsyncClient, authorization: str) -> None:
    for method, path in (
        ("GET", "/admin/v1/keys"),
        ("GET", "/admin/v1/activity"),
        ("POST", "/admin/v1/keys"),
        ("DELETE", "/admin/v1/keys/x"),
    ):
        rejected = await admin.request(method, path, headers={"Authorization": authorization})
        assert rejected.status_code == 401
        assert rejected.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/keys", {"name": "a", "limits": {"rpm": True}}, "limits.rpm"),
        ("POST", "/keys", {"name": "a", "model_limits": {"m": {"daily_tokens": True}}}, "model_limits.m.daily_tokens"),
        ("POST", "/keys", {"name": "a", "expires": True}, "expires"),
        ("POST", "/keys/a/rotate", {"grace_seconds": False}, "grace_seconds"),
    ],
)
async def test_a_boolean_is_no_number(
    admin: httpx.AsyncClient, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    rejected = await admin.request(method, f"/admin/v1{path}", json=body)
    assert (rejected.status_code, rejected.json()["error"]["param"]) == (400, field)


async def test_the_admin_api_is_not_on_the_public_port(gateways: list[str], admin: httpx.AsyncClient) -> None:
    async with client_of(gateways[0], ADMIN_TOKEN) as public:
        assert (await public.get("/admin/v1/keys")).status_code == 404
        assert (await public.get("/admin/v1/openapi.json")).status_code == 404
    assert (await admin.post(URL, json=body())).status_code == 404


@pytest.mark.parametrize(
    ("request_", "status", "message_id", "param"),
    [
        (("POST", "/keys", {"name": ""}), 400, "admin_field_not_valid", "name"),
        (("POST", "/keys", {"name": "a", "limits": {"rpm": 0}}), 400, "admin_field_not_valid", "limits.rpm"),
        (("POST", "/keys", {"name": "a", "limits": {"rmp": 1}}), 400, "admin_field_not_valid", "limits.rmp"),
        (("POST", "/keys", {"name": "a", "expires": 1}), 400, "key_expires_in_past", "expires"),
        (("PATCH", "/keys/nobody", {"owner": "x"}), 404, "key_not_found", None),
        (("DELETE", "/keys/nobody", None), 404, "key_not_found", None),
        (("GET", "/nothing", None), 404, "admin_request_not_valid", None),
    ],
)
async def test_errors_name_the_wrong_field(
    admin: httpx.AsyncClient,
    request_: tuple[str, str, dict[str, object] | None],
    status: int,
    message_id: str,
    param: str | None,
) -> None:
    method, path, fields = request_
    response = await admin.request(method, f"/admin/v1{path}", json=fields)
    assert response.status_code == status
    assert (message_id_of(response), response.json()["error"]["param"]) == (message_id, param)


async def test_a_name_that_is_taken_gets_409(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/admin/v1/keys", json={"name": "twice"})).status_code == 201
    again = await admin.post("/admin/v1/keys", json={"name": "twice"})
    assert again.status_code == 409
    assert message_id_of(again) == "key_name_taken"


async def test_the_openapi_document_describes_the_admin_api(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/admin/v1/openapi.json")).json()
    assert set(document["paths"]) == {
        "/admin/v1/activity",
        "/admin/v1/aliases",
        "/admin/v1/aliases/{alias}",
        "/admin/v1/audit",
        "/admin/v1/keys",
        "/admin/v1/keys/{name_or_id}",
        "/admin/v1/keys/{name_or_id}/rotate",
        "/admin/v1/keys/{name_or_id}/usage",
        "/admin/v1/requests/{request_id}",
    }
    assert "HTTPBearer" in document["components"]["securitySchemes"]
    for operation in (each for methods in document["paths"].values() for each in methods.values()):
        success, *errors = operation["responses"]
        assert success.startswith("2")
        assert errors == ["4XX", "5XX"]
    assert "uniqueItems" not in str(document["components"]["schemas"]["Draft"])
    (alias,) = document["paths"]["/admin/v1/aliases/{alias}"]["put"]["parameters"]
    assert alias["schema"]["pattern"].startswith("^[A-Za-z0-9]")
    schema = {"$ref": "#/components/schemas/AdminError", "components": document["components"]}
    for response in (await admin.get("/admin/v1/keys/nobody"), await admin.get("/admin/v1/activity?limit=-1")):
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(response.json())


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/keys", "GET, POST"),
        ("/keys/a", "DELETE, GET, PATCH"),
        ("/keys/a/rotate", "POST"),
        ("/aliases/a/b", "DELETE, PUT"),
        ("/activity", "GET"),
    ],
)
async def test_a_wrong_method_is_told_all_that_the_path_allows(
    admin: httpx.AsyncClient, path: str, methods: str
) -> None:
    response = await admin.request("OPTIONS", f"/admin/v1{path}")
    assert response.status_code == 405
    assert response.headers["allow"] == methods


async def test_the_examples_of_the_document_are_valid_and_accepted(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/admin/v1/openapi.json")).json()
    for operations in document["paths"].values():
        for operation in operations.values():
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            (success,) = (response for status, response in operation["responses"].items() if status.startswith("2"))
            for content in (part["content"]["application/json"] for part in (*bodies, success)):
                schema = {**content["schema"], "components": document["components"]}
                assert content["examples"]
                for example in content["examples"].values():
                    assert jsonschema_rs.Draft202012Validator(schema).is_valid(example["value"])
    for path, method, status in (
        ("", "post", 201),
        ("/{name_or_id}", "patch", 200),
        ("/{name_or_id}/rotate", "post", 201),
    ):
        content = document["paths"][f"/admin/v1/keys{path}"][method]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            url = f"/admin/v1/keys{path}".format(name_or_id="shop")
            assert (await admin.request(method, url, json=example["value"])).status_code == status


async def test_a_revoked_key_is_neither_changed_nor_rotated(
    admin: httpx.AsyncClient, gateways: list[str], worker: CountingWorker
) -> None:
    made = (await admin.post("/admin/v1/keys", json={"name": "gone"})).json()
    assert (await admin.delete("/admin/v1/keys/gone")).status_code == 200
    path = f"/admin/v1/keys/{made['id']}"
    for rejected in (await admin.post(f"{path}/rotate"), await admin.patch(path, json={"owner": "x"})):
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (409, "key_revoked")
    shown = (await admin.get(path)).json()
    assert shown["revoked"] >= made["created"]
    assert made["id"] not in {key["id"] for key in (await admin.get("/admin/v1/keys")).json()}
    async with client_of(gateways[0], made["key"]) as client:
        assert (await client.post(URL, json=body(1))).status_code == 401
    assert (await admin.post("/admin/v1/keys", json={"name": "gone"})).status_code == 201, "the name is free"


async def test_a_name_must_not_look_like_an_id(admin: httpx.AsyncClient) -> None:
    victim = (await admin.post("/admin/v1/keys", json={"name": "victim"})).json()
    for name in (victim["id"], "a/b", "..", victim["key"]):
        rejected = await admin.post("/admin/v1/keys", json={"name": name})
        assert rejected.status_code == 400
        assert "take another name" in rejected.text or "no slash" in rejected.text
        assert victim["key"] not in rejected.text


@pytest.mark.parametrize("field", ["name", "owner", "tier", "models", "model_limits"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_half_a_surrogate_pair_gets_400(admin: httpx.AsyncClient, field: str, method: str) -> None:
    half = "\ud800"
    value = {"models": [half], "model_limits": {half: {"rpm": 1}}}.get(field, half)
    if method == "PATCH":
        made = await admin.post("/admin/v1/keys", json={"name": f"whole-{field}"})
        assert made.status_code == 201
    path = "/admin/v1/keys" if method == "POST" else f"/admin/v1/keys/whole-{field}"
    content = json.dumps(({"name": "a"} if method == "POST" else {}) | {field: value})
    response = await admin.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text
    assert field in response.json()["error"]["param"]


async def test_the_audit_log_names_the_caller_and_the_place(admin: httpx.AsyncClient, gateways: list[str]) -> None:
    headers = {b"X-Vilix-Actor": "سارا \u202e".encode()}
    made = await admin.post("/admin/v1/keys", json={"name": "watched", "limits": {"rpm": 9}}, headers=headers)
    await admin.delete("/admin/v1/keys/watched")
    revoked, created = (await admin.get("/admin/v1/audit", params={"subject": "watched"})).json()
    assert (created["actor"], created["address"], created["subject"]) == (
        "admin API: سارا",
        "127.0.0.1",
        made.json()["id"],
    )
    assert (revoked["actor"], revoked["action"]) == ("admin API", "key.revoked")
    tiers = (await admin.get("/admin/v1/audit", params={"subject": "tiers"})).json()
    assert len(tiers) == 1, "two gateways have read the same file"
    assert "patient" in tiers[0]["after"]
    assert (await admin.get("/admin/v1/audit", params={"limit": 5000})).status_code == 400
