"""How the models' engines are: asked of Triton at an interval, for health, descriptions and status streams alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.metrics import note_cache_use, note_engines
from services.inference.model.served_model import EngineDescription, ServedModel, describe
from services.runtime.failure import Failure, Reason
from services.runtime.silence import LOOKS
from services.worker.triton_client import DESCRIBE_SECONDS, DeadModelError, TritonClient

WHILE_NOT_READY_SECONDS: Final = 0.2
STALL_SECONDS: Final = 20.0
Note = Callable[["EngineDescription | None", pb.ModelStatus, "float | None"], None]
"""Takes what a look has found: description, state, use of the KV cache."""
_log: Final = logging.getLogger(__name__)


def _ignore(model_id: str, ready: bool) -> None:
    pass


class EngineStatus:
    """The latest state of every model. One poll of each model serves everybody who wants to know."""

    def __init__(
        self,
        tritons: Mapping[str, TritonClient],
        models: Mapping[str, ServedModel],
        *,
        interval: float,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Looks every `interval` seconds at each model, in its own Triton of `tritons`.

        An engine that is silent, or makes no progress, for `stall_seconds` has lost its requests.
        """
        self._tritons: Final = tritons
        self._models: Final = models
        self._intervals: Final = [interval]
        self._stall_seconds: Final = stall_seconds
        self._states: Final = {model_id: pb.ModelStatus(model=model_id) for model_id in sorted(models)}
        self._said: Final[dict[str, str]] = {}
        self._serving = False

    async def run(
        self, on_change: Callable[[bool], None], on_model_change: Callable[[str, bool], None] = _ignore
    ) -> None:
        """Look again and again, as often as the most impatient watcher wants; forever.

        `on_change` is told whether any model can answer, and `on_model_change` of each model whether it can, whenever that
        changes. At first, none can.
        """
        await asyncio.gather(*(self._follow(model, on_change, on_model_change) for model in self._models.values()))

    async def _follow(
        self, model: ServedModel, on_change: Callable[[bool], None], on_model_change: Callable[[str, bool], None]
    ) -> None:
        """Look at one model: a slow one holds up nobody's news of another one."""

        def note(description: EngineDescription | None, state: pb.ModelStatus, cache_use: float | None) -> None:
            was_ready = self._states[model.id].ready
            model.description, self._states[model.id] = description, state
            note_cache_use(model.id, cache_use)
            note_engines([state])
            if state.ready is not was_ready:
                _log.info("model %s is %s", model.id, "ready" if state.ready else "not ready")
                on_model_change(model.id, state.ready)
            serving = any(state.ready for state in self._states.values())
            if serving is not self._serving:
                self._serving = serving
                on_change(serving)

        while True:
            await self._look(model, note)
            ready = self._states[model.id].ready
            await asyncio.sleep(min(*self._intervals, *([] if ready else [WHILE_NOT_READY_SECONDS]), 3600))

    @contextlib.contextmanager
    def watched(self, interval: float) -> Iterator[None]:
        """Meanwhile, look at least every `interval` seconds."""
        self._intervals.append(interval)
        try:
            yield
        finally:
            self._intervals.remove(interval)

    def states(self) -> list[pb.ModelStatus]:
        """The latest state of each model, by id."""
        return list(self._states.values())

    async def _look(self, model: ServedModel, note: Note) -> None:
        asking = asyncio.ensure_future(self._tritons[model.id].describe(model.id, seconds=self._stall_seconds))
        try:
            for _ in range(LOOKS):
                # In parts, so that time in which this event loop stands still does not count.
                await asyncio.wait({asking}, timeout=DESCRIBE_SECONDS / LOOKS)
            if not asking.done():
                # It gets no new requests. Those that run may still be answered.
                self._say(model, "it does not answer")
                note(None, pb.ModelStatus(model=model.id), None)
            answer = await asking
            self._refuse_stall(answer)
            note(describe(answer), _state(model.id, answer), answer["load"]["kv_cache_use"])
            model.described_at = time.monotonic()
            self._said.pop(model.id, None)
        except Failure as failure:
            self._say(model, failure.message)
            note(None, pb.ModelStatus(model=model.id), None)
            if failure.reason is not Reason.TIMEOUT or not await self._generates(model):
                self._end_requests(model, failure)
        except Exception:  # noqa: BLE001  # whatever it was, health must go on being true
            _log.exception("model %s described itself in a way that was not understood", model.id)
            note(None, pb.ModelStatus(model=model.id), None)
        finally:
            asking.cancel()

    def _refuse_stall(self, answer: Mapping[str, Any]) -> None:
        # Engines that were loaded by an earlier release do not report it.
        age = answer["load"].get("step_age_s")
        if age is not None and age >= self._stall_seconds:
            raise StalledError(f"the engine has made no progress for {age:.1f} s")

    async def _generates(self, model: ServedModel) -> bool:
        """Return whether the engine of `model` has generated tokens lately, although it did not answer `describe` in time."""
        # What came while this event loop stood still is read first.
        await asyncio.sleep(WHILE_NOT_READY_SECONDS)
        return time.monotonic() - model.generated_at < self._stall_seconds + WHILE_NOT_READY_SECONDS

    def _end_requests(self, model: ServedModel, failure: Failure) -> None:
        """End the open requests of a model that has lost them. A Triton that is about to stop answers what runs."""
        if isinstance(failure, DeadModelError | StalledError) or failure.reason is Reason.TIMEOUT:
            message = f"the model {model.id} has stopped working on the request; try again in a few seconds"
            model.end_requests(Failure(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0))

    def _say(self, model: ServedModel, why: str) -> None:
        # The same trouble is told once.
        if self._said.get(model.id) != why and model.described_at:
            self._said[model.id] = why
            _log.warning("model %s: %s", model.id, why)


class StalledError(Failure):
    """An engine whose requests get nothing any more, though its process answers."""

    def __init__(self, message: str) -> None:
        """`message` says for how long."""
        super().__init__(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0)


def _state(model_id: str, answer: Mapping[str, Any]) -> pb.ModelStatus:
    load = answer["load"]
    state = pb.ModelStatus(
        model=model_id,
        ready=True,
        in_flight=load["in_flight"],
        queued=load["queued"],
        slots=answer["slots"],
        kv_cache_use=load["kv_cache_use"],
        tokens_per_second=load["tokens_per_second"],
        cancelled_total=load["cancelled_total"],
        generated_tokens_total=load["generated_tokens_total"],
        # A model that was written by an earlier version does not count them.
        slow_steps_total=load.get("slow_steps_total", 0),
    )
    if load["last_token_age_s"] is not None:
        state.last_token_age.FromMicroseconds(int(load["last_token_age_s"] * 1e6))
    return state
