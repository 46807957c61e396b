"""The status of each engine, its effect on the engine's requests, and the independence of the models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.inference.model.catalog import ModelSpec, load_model
from services.inference.model.engine_status import EngineStatus
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.triton_failures import DeadModelError
from tests.support.waits import until
from tests.unit.inference.scripted import ScriptedTriton

STALL_SECONDS = 0.3


@dataclass
class Model:
    """The parts of a served model that the status uses."""

    id: str
    spec: ModelSpec = field(default_factory=lambda: load_model("smollm2-135m"))
    description: Any = None
    described_at: float = 0.0
    generated_at: float = 0.0
    ended: list[Failure] = field(default_factory=list)

    def end_requests(self, failure: Failure) -> None:
        self.ended.append(failure)


@dataclass
class Watched:
    """Two models that are polled, each in a Triton of its own."""

    tritons: dict[str, ScriptedTriton]
    models: dict[str, Model]
    serving: list[bool] = field(default_factory=list)
    by_model: dict[str, bool] = field(default_factory=dict)


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(EngineStatus, "answer_seconds", 0.1)
    names = ("first", "second")
    watched = Watched({name: ScriptedTriton() for name in names}, {name: Model(name) for name in names})
    tritons: Any = watched.tritons
    models: Any = watched.models
    status = EngineStatus(tritons, models, interval=0.02, stall_seconds=STALL_SECONDS)
    task = asyncio.create_task(status.run(watched.serving.append, watched.by_model.__setitem__))
    await until(lambda: watched.by_model == {"first": True, "second": True})
    yield watched
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_dead_model_does_not_affect_other_models(watched: Watched) -> None:
    watched.tritons["first"].trouble = DeadModelError("first")
    await until(lambda: watched.by_model == {"first": False, "second": True})
    assert watched.serving == [True]
    assert watched.models["first"].description is None
    assert watched.models["second"].description is not None
    await until(lambda: bool(watched.models["first"].ended))
    assert {failure.reason for failure in watched.models["first"].ended} == {Reason.MODEL_UNAVAILABLE}
    assert not watched.models["second"].ended
    watched.tritons["first"].trouble = None
    await until(lambda: watched.by_model == {"first": True, "second": True})


async def test_the_service_is_not_serving_once_every_model_is_down(watched: Watched) -> None:
    for triton in watched.tritons.values():
        triton.trouble = DeadModelError("both")
    await until(lambda: watched.serving == [True, False])


async def test_the_requests_of_an_engine_without_progress_end(watched: Watched) -> None:
    watched.tritons["second"].step_age_s = STALL_SECONDS - 0.1
    described = watched.tritons["second"].described
    await until(lambda: watched.tritons["second"].described > described + 2)
    assert not watched.models["second"].ended
    watched.tritons["second"].step_age_s = STALL_SECONDS
    await until(lambda: bool(watched.models["second"].ended))
    assert watched.by_model == {"first": True, "second": False}


async def test_a_silent_engine_gets_no_new_requests_before_its_running_ones_end(watched: Watched) -> None:
    watched.tritons["first"].silent = True
    await until(lambda: not watched.by_model["first"])
    assert not watched.models["first"].ended
    await until(lambda: bool(watched.models["first"].ended))
    assert watched.by_model["second"]


async def test_a_busy_engine_that_still_generates_keeps_its_requests(watched: Watched) -> None:
    triton, model = watched.tritons["first"], watched.models["first"]
    triton.silent = True

    async def generate() -> None:
        while True:
            model.generated_at = time.monotonic()
            await asyncio.sleep(STALL_SECONDS / 10)

    generating = asyncio.create_task(generate())
    described = triton.described
    await until(lambda: triton.described > described + 2)
    assert not watched.by_model["first"], "it gets no new requests"
    assert not model.ended
    generating.cancel()
    await until(lambda: bool(model.ended))


async def test_a_stopping_triton_keeps_its_requests(watched: Watched) -> None:
    watched.tritons["first"].trouble = Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("Server is stopping"))
    await until(lambda: not watched.by_model["first"])
    described = watched.tritons["first"].described
    await until(lambda: watched.tritons["first"].described > described + 2)
    assert not watched.models["first"].ended


async def test_an_answer_that_arrived_while_the_event_loop_was_blocked_is_in_time(watched: Watched) -> None:
    triton, model, ready = watched.tritons["first"], watched.models["first"], []
    describe = triton.describe

    async def describe_late(model_id: str, *, seconds: float = 5.0) -> dict[str, Any]:
        time.sleep(EngineStatus.answer_seconds * 2)  # noqa: ASYNC251  # the loop is to stand still
        for _ in range(5):
            # Messages that arrived meanwhile are read some iterations of the loop later.
            await asyncio.sleep(0)
        ready.append(model.description is not None)
        return await describe(model_id, seconds=seconds)

    triton.describe = describe_late  # type: ignore[method-assign]
    await until(lambda: len(ready) > 3)
    assert all(ready)
