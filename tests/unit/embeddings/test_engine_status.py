"""An embedding model that answers in time stays available, also when the worker reads its answer late."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings.engine_status import EngineStatus
from tests.support.waits import until

LIMIT = 10.0
SECONDS = 0.05


@dataclass
class Answer:
    """A tensor that holds text."""

    text: str

    def string(self) -> str:
        return self.text


@dataclass
class Model:
    """The parts of a served model that the status uses."""

    id: str = "m"
    description: Any = None

    def load_ratio(self) -> float:
        return 0.0

    def read_description(self, description: dict[str, Any]) -> dict[str, Any]:
        return {**description, "read": True}

    def status(self) -> pb.ModelStatus:
        return pb.ModelStatus(model=self.id, ready=self.description is not None)


class LateTriton:
    """Answers each request while the event loop is blocked."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.ready: list[bool] = []
        """Whether the model was available when each answer but the first was read."""

    async def infer(self, *_: Any, **__: Any) -> dict[str, Answer]:
        was_ready = self.model.description is not None
        time.sleep(4 * SECONDS)  # noqa: ASYNC251  # blocks the event loop on purpose
        for _turn in range(5):
            # Messages that arrived meanwhile are read some iterations of the loop later.
            await asyncio.sleep(0)
        if was_ready:
            self.ready.append(self.model.description is not None)
        return {"description": Answer("{}")}


async def test_an_answer_that_arrived_while_the_event_loop_was_blocked_is_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EngineStatus, "answer_seconds", 2 * SECONDS)
    model = Model()
    triton = LateTriton(model)
    # The client and the model are stand-ins.
    status = EngineStatus({"m": triton}, {"m": model}, interval=0.01, stall_seconds=30)  # type: ignore[dict-item]
    task = asyncio.create_task(status.run(lambda _: None))
    await until(lambda: len(triton.ready) >= 4, LIMIT, "it was asked four times")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert all(triton.ready)
