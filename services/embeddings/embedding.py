"""Embeds rows: splits them into batches, queues the batches fairly, and puts the vectors together in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from services.embeddings.catalog import BatchSpec
from services.embeddings.fair_queue import Flow
from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.runtime.failure import Failure, Reason
from services.runtime.heartbeat import Heartbeat, IdleTimeoutError
from services.runtime.messages.message import Message
from services.worker.triton_client import TritonClient

_CAUSED_BY_A_TEXT: Final = (Reason.ENGINE_FAILED, Reason.INVALID_ARGUMENT)
"""Reasons of failures that one text of a batch may have caused."""


@dataclass(frozen=True)
class Embedder:
    """Embeds rows with any model of one Triton."""

    triton: TritonClient
    batch_seconds: float
    """The timeout of one batch in seconds."""
    heartbeat: Heartbeat
    """Triton's heartbeat. A request of many batches may take longer than Triton may be silent."""

    async def embed(
        self, model: ServedModel, field: str, rows: Sequence[Row], *, request_id: str, priority: int
    ) -> NDArray[float32]:
        """Return the vectors of `rows`, float32 of shape [rows, dimensions], in order.

        Cancellation withdraws the batches that wait; the engine finishes those that it works on. Raises Failure, which
        names the row that caused it, if any, as `field[index]`.
        """
        vectors = np.empty((len(rows), model.spec.dimensions), float32)
        flow = Flow(priority)

        async def fill(batch: list[int]) -> None:
            try:
                vectors[batch] = await self._run(model, [rows[index] for index in batch], flow, request_id)
            except Failure as failure:
                if failure.reason not in _CAUSED_BY_A_TEXT:
                    raise
                if len(batch) == 1:
                    raise _failure_of_text(failure, f"{field}[{batch[0]}]") from failure
                # One text makes the batch fail: embedding each text alone shows which one.
                for index in batch:
                    await fill([index])

        try:
            async with self.heartbeat.required(), model.engine_required(), asyncio.TaskGroup() as group:
                for batch in batches(rows, model.spec.batch):
                    group.create_task(fill(batch))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except IdleTimeoutError as silence:
            message = Message("engine_silent", seconds=f"{silence.seconds:.1f}")
            raise Failure(Reason.TIMEOUT, message, retry_after=1.0) from None
        return vectors

    async def _run(self, model: ServedModel, rows: Sequence[Row], flow: Flow, request_id: str) -> NDArray[float32]:
        tokens = sum(row.tokens for row in rows)
        await model.queue.enter(flow, tokens=tokens, texts=len(rows))
        columns = {model.tokenization.takes: [row.payload for row in rows]}
        call = asyncio.ensure_future(
            self.triton.infer(model.id, columns, request_id=request_id, seconds=self.batch_seconds)
        )
        call.add_done_callback(lambda _: model.queue.leave(tokens))
        # Shielded: the engine finishes a batch that it has begun, and its capacity is not free until then.
        answer = await asyncio.shield(call)
        tensor = answer.get("embedding")
        shape = (len(rows), model.spec.dimensions)
        if tensor is None or tensor.shape != shape:
            actual = None if tensor is None else tensor.shape
            problem = f"it answered with {actual} instead of {shape}"
            raise Failure(Reason.ENGINE_FAILED, Message("engine_failed", reason=problem))
        model.load.embedded_total += len(rows)
        model.load.tokens_total += tokens
        return np.frombuffer(tensor.raw, "<f4").reshape(shape)


def batches(rows: Sequence[Row], batch: BatchSpec) -> Iterator[list[int]]:
    """Yield the indices of all rows, in groups that fit into one batch, with rows of similar length together."""
    group: list[int] = []
    tokens = 0
    for index in sorted(range(len(rows)), key=lambda index: rows[index].tokens):
        if group and (len(group) == batch.texts or tokens + rows[index].tokens > batch.tokens):
            yield group
            group, tokens = [], 0
        group.append(index)
        tokens += rows[index].tokens
    if group:
        yield group


def _failure_of_text(failure: Failure, field: str) -> Failure:
    return Failure(failure.reason, Message("text_not_embedded", field=field, reason=str(failure).rstrip(".")))
