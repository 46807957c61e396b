"""Puts rows through the engine: split into batches, let in fairly, and put together again in order."""

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
from services.runtime.failure import Failure, Reason, Violation
from services.runtime.heartbeat import Heartbeat, IdleTimeoutError
from services.worker.triton_client import TritonClient

_THE_INPUTS_FAULT: Final = (Reason.ENGINE_FAILED, Reason.INVALID_ARGUMENT)


@dataclass(frozen=True)
class Embedder:
    """Embeds rows with any model of one Triton."""

    triton: TritonClient
    batch_seconds: float
    """How long the engine may take for one batch."""
    heartbeat: Heartbeat
    """Of Triton. A request has many batches, and may take longer than Triton may be silent."""

    async def embed(
        self, model: ServedModel, field: str, rows: Sequence[Row], *, request_id: str, priority: int
    ) -> NDArray[float32]:
        """The vectors of `rows`, float32 of shape [rows, dimensions], in order.

        Cancelling it takes back what has not begun; what the engine works on ends on its own. Raises Failure; when a
        row is at fault, it is named as `field[index]`.
        """
        vectors = np.empty((len(rows), model.spec.dimensions), float32)
        flow = Flow(priority)

        async def fill(batch: list[int]) -> None:
            try:
                vectors[batch] = await self._run(model, [rows[index] for index in batch], flow, request_id)
            except Failure as failure:
                if failure.reason not in _THE_INPUTS_FAULT:
                    raise
                if len(batch) == 1:
                    raise _of_one(failure, f"{field}[{batch[0]}]") from failure
                # One text spoils the others: each on its own shows which one it is.
                for index in batch:
                    await fill([index])

        try:
            async with self.heartbeat.required(), model.engine_required(), asyncio.TaskGroup() as group:
                for batch in batches(rows, model.spec.batch):
                    group.create_task(fill(batch))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except IdleTimeoutError as silence:
            message = f"the engine has been silent for {silence.seconds:.1f} s; try again"
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
        # Shielded: the engine goes on with what it has begun, and until it is done its room is not free.
        answer = await asyncio.shield(call)
        tensor = answer.get("embedding")
        shape = (len(rows), model.spec.dimensions)
        if tensor is None or tensor.shape != shape:
            got = None if tensor is None else tensor.shape
            raise Failure(Reason.ENGINE_FAILED, f"the model {model.id} answered with {got} instead of {shape}")
        model.load.embedded_total += len(rows)
        model.load.tokens_total += tokens
        return np.frombuffer(tensor.raw, "<f4").reshape(shape)


def batches(rows: Sequence[Row], batch: BatchSpec) -> Iterator[list[int]]:
    """The indices of all rows, in groups that fit into one batch; rows of similar length go together."""
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


def _of_one(failure: Failure, field: str) -> Failure:
    message = f"{field} could not be embedded: {failure.message}"
    return Failure(failure.reason, message, violations=(Violation(field, message),))
