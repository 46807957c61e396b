from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import grpc
import numpy as np
import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.dialects.openai_embeddings.request import OpenAIEmbedCall
from services.gateway.dialects.openai_embeddings.response import SEGMENT_NUMBERS, segments
from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import NO_LIMITS
from services.gateway.operations.embed import VectorsReply
from services.gateway.record import Outcome, RequestRecord
from services.gateway.routing.embedding import Embedding
from services.runtime.heartbeat import Heartbeat
from tests.support.waits import until


def embed_response(count: int, dimensions: int) -> pb.EmbedResponse:
    numbers = np.random.default_rng(1).standard_normal((count, dimensions), np.float32)
    return pb.EmbedResponse(embeddings=numbers.tobytes(), count=count, dimensions=dimensions, token_counts=[1] * count)


@pytest.mark.parametrize("in_base64", [True, False])
@pytest.mark.parametrize(
    ("count", "dimensions"), [(1, 3), (100, 1024), (3, SEGMENT_NUMBERS + 1), (16, SEGMENT_NUMBERS // 16)]
)
def test_the_segments_are_one_json_object(count: int, dimensions: int, in_base64: bool) -> None:
    whole = json.loads(b"".join(segments(embed_response(count, dimensions), model='a "name"', in_base64=in_base64)))
    assert [entry["index"] for entry in whole["data"]] == list(range(count))
    assert (whole["model"], whole["usage"]) == ('a "name"', {"prompt_tokens": count, "total_tokens": count})


@pytest.mark.parametrize("in_base64", [True, False])
async def test_other_tasks_run_between_the_segments_of_a_large_response(in_base64: bool) -> None:
    turns = 0
    sent: list[bytes] = []
    turns_at: list[int] = []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            turns_at.append(turns)

    async def receive() -> Any:
        raise AssertionError("nothing more is read")

    large = embed_response(2048, 1024)
    running = asyncio.create_task(others())
    scope = {"type": "http", "headers": [], "state": {"record": RequestRecord("r", "POST")}}
    call = OpenAIEmbedCall(embed=pb.EmbedRequest(model="m"), in_base64=in_base64)
    await VectorsReply(OpenAIEmbeddings(), Exchange(scope, receive, send), call).write(large, NO_LIMITS)
    running.cancel()
    assert len(json.loads(b"".join(sent))["data"]) == 2048
    assert len(sent) > 2048 * 1024 / SEGMENT_NUMBERS
    assert all(later > earlier for earlier, later in itertools.pairwise(turns_at))


class FakeWorker:
    """An embeddings worker and its client. Tests complete, fail or cancel `call`."""

    def __init__(self) -> None:
        self.client = self
        self.address = "worker:1"
        self.in_flight = 0
        self.heartbeat = Heartbeat(idle_seconds=60)
        self.call = asyncio.get_running_loop().create_future()

    def embed(self, request: pb.EmbedRequest, *, request_id: str, traced: None) -> asyncio.Future[pb.EmbedResponse]:
        return self.call

    def lose_model(self, model: str) -> None:
        """Do nothing."""


class FakePool:
    """A pool of one worker."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker

    def choose(self, request: pb.EmbedRequest, *, excluded: object) -> FakeWorker:
        return self._worker

    def has_another(self, model: str, *, excluded: object) -> bool:
        return False


def status(code: grpc.StatusCode, details: str = "") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize(
    ("error", "outcome", "worker_status"),
    [
        (status(grpc.StatusCode.UNAVAILABLE), Outcome.BROKEN_OFF, "UNAVAILABLE"),
        (status(grpc.StatusCode.DATA_LOSS), Outcome.BROKEN_OFF, "DATA_LOSS"),
        (status(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"), Outcome.REJECTED, "RESOURCE_EXHAUSTED"),
    ],
)
async def test_a_workers_failure_is_in_the_record(
    error: grpc.aio.AioRpcError, outcome: Outcome, worker_status: str
) -> None:
    worker, record = FakeWorker(), RequestRecord("r", "POST")
    worker.call.set_exception(error)
    with pytest.raises(ApiError):
        await Embedding(FakePool(worker), record).run(pb.EmbedRequest(model="m"))  # type: ignore[arg-type]  # a fake
    assert (record.outcome, record.worker_status) == (outcome, worker_status)
    assert worker.in_flight == 0


async def test_an_embedding_of_a_client_that_is_gone_has_the_outcome_client_gone() -> None:
    worker, record = FakeWorker(), RequestRecord("r", "POST")
    embedding = Embedding(FakePool(worker), record)  # type: ignore[arg-type]  # a fake
    running = asyncio.create_task(embedding.run(pb.EmbedRequest(model="m")))
    await until(lambda: worker.in_flight)
    embedding.cancel()
    with pytest.raises(ClientGoneError):
        await running
    assert (record.outcome, record.worker_status) == (Outcome.CLIENT_GONE, None)


async def test_an_embedding_that_the_end_of_the_drain_cuts_off_has_the_outcome_drained() -> None:
    worker, record = FakeWorker(), RequestRecord("r", "POST")
    embedding = Embedding(FakePool(worker), record)  # type: ignore[arg-type]  # a fake
    running = asyncio.create_task(embedding.run(pb.EmbedRequest(model="m")))
    await until(lambda: worker.in_flight)
    running.cancel()
    with pytest.raises(ApiError):
        await running
    assert (record.outcome, record.worker_status) == (Outcome.DRAINED, None)
