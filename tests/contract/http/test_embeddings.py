"""The responses of POST /embeddings, with a stand-in for an embeddings worker."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.stack.ports import free_ports
from tests.support.api_document import BY_PATH, check, content, requests
from tests.support.gateway import running_gateway
from tests.support.scripted_worker import MODEL as CHAT_MODEL
from tests.support.stand_in_workers import serving
from tests.support.waits import until

SERVICE = "vilix.embeddings.v1.EmbeddingsService"
MODEL, EXPECTED = "scripted-embedding", "expected-embedding"
URL = "/api/embeddings"


class ScriptedEmbedder(embeddings_service_pb2_grpc.EmbeddingsServiceServicer):
    """Returns numbers made from each text's index, or fails with `failure`. Waits for `go_on` first."""

    def __init__(self) -> None:
        self.dimensions = 3
        self.failure: Failure | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.requests: list[pb.EmbedRequest] = []
        self.cancelled = asyncio.Event()

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:  # noqa: N802
        self.requests.append(request)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failure is not None:
            await context.abort_with_status(self.failure.status())
        count = len(request.texts)
        return pb.EmbedResponse(
            embeddings=vectors(count, self.dimensions).tobytes(),
            count=count,
            dimensions=self.dimensions,
            token_counts=[2] * count,
            timings=pb.Timings(tokenize=Duration(nanos=2_000_000), embed=Duration(nanos=5_500_000)),
            served_by=pb.ServedBy(worker="pod-1", engine="scripted", engine_version="1.2"),
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        model = pb.Model(id=MODEL, owned_by="tests", dimensions=3, max_input_tokens=9, engine="scripted")
        model.default_input_type, model.token_input = pb.INPUT_TYPE_PASSAGE, pb.TOKEN_INPUT_CL100K_BASE
        model.created.FromSeconds(1)
        return pb.ListModelsResponse(models=[model])


def vectors(count: int, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(count).standard_normal((count, dimensions), np.float32)


@asynccontextmanager
async def scripted_embedder(port: int) -> AsyncIterator[ScriptedEmbedder]:
    """Serve a scripted embedder on 127.0.0.1:`port`."""
    embedder = ScriptedEmbedder()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", 64 * 2**20)])
    embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server(embedder, server)
    async with serving(server, SERVICE, f"127.0.0.1:{port}"):
        yield embedder


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture(scope="module")
def address(
    redis_url: str, worker_port: int, ports: list[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log: Path = tmp_path_factory.mktemp("gateway") / "gateway.log"
    with running_gateway(
        redis_url,
        f"127.0.0.1:{worker_port}",
        log,
        VILIX_EMBEDDINGS_WORKERS=",".join(f"127.0.0.1:{port}" for port in ports),
        VILIX_EXPECTED_EMBEDDING_MODELS=f"{MODEL},{EXPECTED}",
    ) as (url, _):
        yield url


@pytest.fixture
async def embedder(ports: list[int]) -> AsyncIterator[ScriptedEmbedder]:
    async with scripted_embedder(ports[0]) as embedder:
        yield embedder


@pytest.fixture
async def http(address: str, api_key: str, embedder: ScriptedEmbedder) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that has found the worker."""
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as client:
        await until_available(client, True)
        yield client


async def until_available(client: httpx.AsyncClient, available: bool) -> None:
    async def is_reported() -> bool:
        try:
            return (await client.get(f"/api/models/{MODEL}")).json()["available"] is available
        except httpx.TransportError:
            return False

    await until(is_reported, what=f"available is {available}")


def body(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": list(texts) or ["a", "b"], **fields}


@pytest.mark.parametrize("name", requests("/embeddings"))
async def test_every_example_of_the_document_is_accepted(http: httpx.AsyncClient, name: str) -> None:
    response = await http.post(URL, json={**requests("/embeddings")[name], "model": MODEL})
    assert response.status_code == 200
    check(response.json(), content(BY_PATH["/embeddings"]))


async def test_a_request_has_a_receipt(http: httpx.AsyncClient) -> None:
    request_id = (await http.post(URL, json=body("a", "b", "c"))).headers["x-request-id"]
    receipt = (await http.get(f"/api/requests/{request_id}")).json()
    check(receipt, content(BY_PATH["/requests/{id}"]))
    assert (receipt["outcome"], receipt["endpoint"], receipt["stream"]) == ("complete", URL, None)
    assert (receipt["worker"], receipt["engine"], receipt["engine_version"]) == ("pod-1", "scripted", "1.2")
    assert receipt["worker_ms"] == {"render": 2.0, "embed": 5.5}
    assert receipt["usage"]["prompt_tokens"] == 6
    times = receipt["timings_ms"]
    assert times["admitted"] <= times["worker_called"] <= times["last_token"] <= times["settled"]


async def test_the_description_of_the_model_is_documented(http: httpx.AsyncClient) -> None:
    check((await http.get(f"/api/models/{MODEL}")).json(), content(BY_PATH["/models/{id}"]))


async def test_a_response_has_openais_format(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, json=body())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    expected = [
        {"object": "embedding", "index": index, "embedding": [float(x) for x in row]}
        for index, row in enumerate(vectors(2, 3))
    ]
    assert response.json() == {
        "object": "list",
        "data": expected,
        "model": MODEL,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_a_large_response_is_exact_and_in_order(
    http: httpx.AsyncClient, embedder: ScriptedEmbedder, encoding_format: str
) -> None:
    embedder.dimensions = 1024
    texts = [str(number) for number in range(300)]
    response = (await http.post(URL, json=body(*texts, encoding_format=encoding_format))).json()
    assert [entry["index"] for entry in response["data"]] == list(range(300))
    given = [entry["embedding"] for entry in response["data"]]
    if encoding_format == "base64":
        given = [np.frombuffer(base64.b64decode(text), "<f4") for text in given]
    assert np.array_equal(np.array(given, np.float32), vectors(300, 1024))
    assert response["usage"] == {"prompt_tokens": 600, "total_tokens": 600}


async def test_the_largest_possible_response_is_sent(http: httpx.AsyncClient, embedder: ScriptedEmbedder) -> None:
    embedder.dimensions = 4096
    response = await http.post(URL, json=body(*["a"] * 2048, encoding_format="base64"))
    assert len(response.json()["data"]) == 2048


async def test_every_field_reaches_the_worker(http: httpx.AsyncClient, embedder: ScriptedEmbedder) -> None:
    await http.post(URL, json=body("سلام", dimensions=2, input_type="query", truncate=True))
    assert embedder.requests[-1] == pb.EmbedRequest(
        model=MODEL, texts=["سلام"], dimensions=2, input_type=pb.INPUT_TYPE_QUERY, truncate=True
    )


@pytest.mark.parametrize(
    ("failure", "status", "error"),
    [
        (
            invalid(Message("text_empty", field="texts[1]")),
            400,
            {
                "param": "input[1]",
                "message": str(Message("text_empty", field="input[1]")),
                "type": "invalid_request_error",
                "code": "empty_string",
            },
        ),
        (
            Failure(
                Reason.CONTEXT_LENGTH_EXCEEDED,
                Message("text_over_context", field="texts[1]", other_field="truncate", value=9, model="m", limit=8),
            ),
            400,
            {"param": "input[1]", "code": "context_length_exceeded"},
        ),
        (Failure(Reason.OVERLOADED, Message.verbatim("busy"), retry_after=3), 429, {"code": "rate_limit_exceeded"}),
        (
            Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("away"), retry_after=3),
            503,
            {"type": "service_unavailable_error"},
        ),
        (Failure(Reason.TIMEOUT, Message.verbatim("slow")), 504, {"type": "server_error", "code": "timeout"}),
        (
            Failure(Reason.ENGINE_FAILED, Message("text_not_embedded", field="texts[1]", reason="infinite numbers")),
            500,
            {"param": "input[1]", "type": "server_error"},
        ),
        (Failure(Reason.INTERNAL, Message.verbatim("secret")), 500, {"param": None, "type": "server_error"}),
    ],
)
async def test_workers_failures_become_openais_errors(
    http: httpx.AsyncClient, embedder: ScriptedEmbedder, failure: Failure, status: int, error: dict[str, Any]
) -> None:
    embedder.failure = failure
    response = await http.post(URL, json=body())
    assert response.status_code == status
    assert response.json()["error"].items() >= error.items()
    assert "secret" not in response.text


async def test_the_gateway_rejects_wrong_requests(http: httpx.AsyncClient) -> None:
    assert (await http.post(URL, json=body(), headers={"Authorization": ""})).status_code == 401
    for model, status in ((EXPECTED, 503), ("nobody", 404), (CHAT_MODEL, 400)):
        assert (await http.post(URL, json=body(model=model))).status_code == status


async def test_fields_without_effect_are_reported(http: httpx.AsyncClient, embedder: ScriptedEmbedder) -> None:
    response = await http.post(URL, json=body(stream=True, foo=1))
    assert (response.status_code, response.headers["x-ignored-params"]) == (200, "foo,stream")
    strict = await http.post(URL, json=body(foo=1), headers={"x-strict-params": "true"})
    assert (strict.status_code, strict.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_embedding_models_are_described(http: httpx.AsyncClient) -> None:
    models = {model["id"]: model for model in (await http.get("/v1/models")).json()["data"]}
    assert models[EXPECTED]["available"] is False
    assert models[MODEL].items() >= {"dimensions": 3, "context_length": 9, "default_input_type": "passage"}.items()
    assert models[MODEL]["token_input"] == "cl100k_base"
    health = (await http.get("/healthz")).json()["models"]
    assert (health[MODEL], health[EXPECTED]) == (True, False)


async def test_a_client_disconnect_cancels_the_workers_call(
    http: httpx.AsyncClient, embedder: ScriptedEmbedder
) -> None:
    embedder.go_on.clear()
    task = asyncio.create_task(http.post(URL, json=body()))
    await until(lambda: embedder.requests, what="the worker has the request")
    task.cancel()
    await until(embedder.cancelled.is_set, what="the call is cancelled")


async def test_another_worker_takes_over_from_a_lost_one(
    http: httpx.AsyncClient, embedder: ScriptedEmbedder, ports: list[int]
) -> None:
    async with scripted_embedder(ports[1]) as second, asyncio.timeout(30):
        while not (second.requests and embedder.requests):
            await http.post(URL, json=body())
        embedder.failure = Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("away"), retry_after=1)
        before = len(embedder.requests)
        while len(embedder.requests) == before:
            response = await http.post(URL, json=body())
            assert response.status_code == 200
        receipt = (await http.get(f"/api/requests/{response.headers['x-request-id']}")).json()
        assert (receipt["outcome"], receipt["retries"]) == ("complete", 1)
