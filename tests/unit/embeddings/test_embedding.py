"""Splitting a request into batches, and putting its vectors together, with a stand-in for Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from services.embeddings.catalog import BatchSpec, ModelSpec, PromptsSpec
from services.embeddings.embedding import Embedder, batches
from services.embeddings.fair_queue import FairQueue
from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.runtime.failure import Failure, Reason
from services.runtime.heartbeat import Heartbeat
from services.runtime.messages.message import Message
from services.worker.triton_messages import Tensor
from tests.support.waits import until
from tests.unit.embeddings.models import spec


class ScriptedTriton:
    """Embeds a row `number` as (number, number); rejects batches with a row in `broken`."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.failure = Failure(Reason.ENGINE_FAILED, Message.verbatim("the model could not embed the texts"))
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.ended = 0

    async def infer(
        self, model: str, columns: Mapping[str, Sequence[bytes]], *, request_id: str, seconds: float | None
    ) -> dict[str, Tensor]:
        numbers = [int(row) for row in columns["text"]]
        self.batches.append(numbers)
        await self.go_on.wait()
        self.ended += 1
        if self.broken & set(numbers):
            raise self.failure
        vectors = np.repeat(np.array(numbers, "<f4")[:, None], 2, axis=1)
        return {"embedding": Tensor((len(numbers), 2), vectors.tobytes())}


class TextTokenization:
    takes = "text"


def model(**fields: object) -> ServedModel:
    entry: ModelSpec = spec(dimensions=2, batch={"texts": 4, "tokens": 20}, **fields)
    # The engine is not used.
    return ServedModel(entry, TextTokenization(), PromptsSpec(), None, FairQueue(capacity=40))  # type: ignore[arg-type]


def rows(*tokens: int) -> list[Row]:
    return [Row(str(number).encode(), count) for number, count in enumerate(tokens)]


async def embed(triton: ScriptedTriton, served: ServedModel, batch_rows: list[Row]) -> list[float]:
    embedder = Embedder(triton, 10, Heartbeat(idle_seconds=60))  # type: ignore[arg-type]  # a stand-in
    return list((await embedder.embed(served, "texts", batch_rows, request_id="r", priority=0))[:, 0])


async def test_vectors_are_in_the_order_of_the_texts_whatever_the_batches() -> None:
    triton = ScriptedTriton()
    batch_rows = rows(*(7 * number % 19 + 1 for number in range(40)))
    assert await embed(triton, model(), batch_rows) == list(range(40))
    assert all(len(batch) <= 4 for batch in triton.batches)


def test_batches_respect_the_limits_and_contain_every_text_once() -> None:
    batch_rows = rows(*(7 * number % 30 + 1 for number in range(50)))
    groups = list(batches(batch_rows, BatchSpec(texts=4, tokens=20)))
    assert sorted(index for group in groups for index in group) == list(range(50))
    assert all(len(group) == 1 or sum(batch_rows[index].tokens for index in group) <= 20 for group in groups)
    assert all(len(group) <= 4 for group in groups)


async def test_a_text_that_fails_is_named_by_its_index() -> None:
    triton = ScriptedTriton()
    triton.broken = {5}
    with pytest.raises(Failure, match=r"texts\[5\]") as caught:
        await embed(triton, model(), rows(*[5] * 12))
    assert caught.value.reason is Reason.ENGINE_FAILED
    assert caught.value.message.field == "texts[5]"


async def test_an_unavailable_engine_is_not_asked_row_by_row() -> None:
    triton = ScriptedTriton()
    triton.broken, triton.failure = (
        {0, 1, 2, 3},
        Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("away"), retry_after=1),
    )
    with pytest.raises(Failure, match="away"):
        await embed(triton, model(), rows(5, 5, 5, 5))
    assert len(triton.batches) == 1


async def test_cancellation_withdraws_waiting_batches_and_keeps_the_capacity_of_running_ones() -> None:
    triton, served = ScriptedTriton(), model()
    triton.go_on.clear()
    task = asyncio.create_task(embed(triton, served, rows(*[20] * 30)))
    await until(lambda: len(triton.batches) == 2, what="two batches are with the engine")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert served.queue.queued_texts == 0
    second = asyncio.create_task(embed(triton, served, rows(20)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(triton.batches) == 2, "the engine is still busy with what was cancelled"
    triton.go_on.set()
    assert await second == [0]
    assert triton.ended == 3


async def test_a_response_of_another_shape_is_a_failure() -> None:
    served = ServedModel(
        spec(dimensions=3, batch={"texts": 4, "tokens": 20}),
        TextTokenization(),  # type: ignore[arg-type]  # as above
        PromptsSpec(),
        None,
        FairQueue(capacity=40),
    )
    with pytest.raises(Failure, match="instead of"):
        await embed(ScriptedTriton(), served, rows(1))
