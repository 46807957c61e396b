"""Lists, health, metrics and responses for a model whose worker is lost or cannot serve it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.stack.ports import free_ports
from tests.support.gateway import running_gateway
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, scripted_worker, started, usage
from tests.support.waits import until

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
SCRIPT: list[Any] = [[started()], [content("Hello")], [finish(), usage()]]


class WorkerOfTwoModels(ScriptedWorker):
    """Serves two models, of which a test can make one unavailable."""

    def __init__(self) -> None:
        super().__init__()
        self.served = [MODEL, "another"]

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[pb.Model(id=model, owned_by="tests") for model in self.served])


@pytest.fixture
def worker_port() -> int:
    """Return the port of a worker that only this module's gateway knows, because gateways remember models."""
    return free_ports(1)[0]


@pytest.fixture
async def client(redis_url: str, api_key: str, worker_port: int, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway without expected models."""
    metrics_port = free_ports(1)[0]
    settings = {"VILIX_EXPECTED_MODELS": "", "VILIX_METRICS_PORT": str(metrics_port)}
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", tmp_path / "log", **settings) as (url, _):
        headers = {"Authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as http:
            http.metrics = f"http://127.0.0.1:{metrics_port}/metrics"  # type: ignore[attr-defined]
            yield http


async def views(client: httpx.AsyncClient, model: str) -> dict[str, Any]:
    """Return every report of whether a model is available."""
    models = (await client.get("/healthz")).json()["models"]
    one = await client.get(f"/api/models/{model}")
    listed = {entry["id"]: entry for entry in (await client.get("/api/models")).json()["data"]}
    text = (await client.get(client.metrics)).text  # type: ignore[attr-defined]
    metric = f'vilix_model_available{{model="{model}"}} '
    return {
        "healthz": models.get(model),
        "one": one.json().get("available"),
        "listed": listed.get(model, {}).get("available"),
        "metric": next((line == f"{metric}1.0" for line in text.splitlines() if line.startswith(metric)), None),
    }


async def until_all_report(client: httpx.AsyncClient, model: str, available: bool) -> None:
    wanted = dict.fromkeys(("healthz", "one", "listed", "metric"), available)

    async def all_report() -> bool:
        try:
            return await views(client, model) == wanted
        except httpx.TransportError:
            return False

    await until(all_report, what=f"all say that available is {available}")


async def test_a_model_that_was_served_is_unavailable_and_not_unknown(
    client: httpx.AsyncClient, worker_port: int
) -> None:
    async with scripted_worker(worker_port) as worker:
        worker.script = SCRIPT
        await until_all_report(client, MODEL, True)
        assert (await client.post("/api/chat/completions", json=BODY)).status_code == 200
    response = await client.post("/api/chat/completions", json=BODY)
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "service_unavailable_error"
    assert int(response.headers["retry-after"]) > 0
    await until_all_report(client, MODEL, False)
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200, "the gateway answers, with 503"
    assert (await client.post("/api/chat/completions", json={**BODY, "model": "never-seen"})).status_code == 404
    async with scripted_worker(worker_port) as worker:
        worker.script = SCRIPT
        await until_all_report(client, MODEL, True)
        assert (await client.post("/api/chat/completions", json=BODY)).status_code == 200


async def test_a_lost_model_does_not_affect_other_models_of_its_worker(
    client: httpx.AsyncClient, worker_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.scripted_worker.ScriptedWorker", WorkerOfTwoModels)
    async with scripted_worker(worker_port) as worker:
        assert isinstance(worker, WorkerOfTwoModels)
        worker.script = SCRIPT
        await until_all_report(client, MODEL, True)
        worker.served.remove(MODEL)
        await until_all_report(client, MODEL, False)
        await until_all_report(client, "another", True)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/api/chat/completions", json=BODY)).status_code == 503
        assert (await client.post("/api/chat/completions", json={**BODY, "model": "another"})).status_code == 200


async def test_after_a_worker_rejects_a_model_all_reports_say_so_at_once(
    client: httpx.AsyncClient, worker_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.scripted_worker.ScriptedWorker", WorkerOfTwoModels)
    async with scripted_worker(worker_port) as worker:
        assert isinstance(worker, WorkerOfTwoModels)
        await until_all_report(client, MODEL, True)
        worker.served.remove(MODEL)
        worker.script = [
            Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("the model's process has died"), retry_after=2)
        ]
        assert (await client.post("/api/chat/completions", json=BODY)).status_code == 503
        assert set((await views(client, MODEL)).values()) == {False}
