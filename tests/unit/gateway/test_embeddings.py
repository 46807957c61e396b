from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import numpy as np
import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.dialects.openai_embeddings.request import OpenAIEmbedCall
from services.gateway.dialects.openai_embeddings.response import SEGMENT_NUMBERS, segments
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import NO_LIMITS
from services.gateway.operations.embed import VectorsReply
from services.gateway.record import RequestRecord


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
