"""How the models' engines are: asked of Triton at an interval, for health, descriptions and status streams alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure
from services.inference.metrics import note_cache_use, note_engines
from services.inference.served_model import ServedModel, describe
from services.triton_client import TritonClient

WHILE_NOT_READY_SECONDS: Final = 0.2
_log: Final = logging.getLogger(__name__)


class EngineStatus:
    """The latest state of every model. One poll serves everybody who wants to know."""

    def __init__(self, triton: TritonClient, models: Mapping[str, ServedModel], *, interval: float) -> None:
        """Looks every `interval` seconds."""
        self._triton: Final = triton
        self._models: Final = models
        self._intervals: Final = [interval]
        self._states: Final = {model_id: pb.ModelStatus(model=model_id) for model_id in sorted(models)}
        self._ready = False

    async def run(self, on_change: Callable[[bool], None]) -> None:
        """Look again and again, as often as the most impatient watcher wants; forever.

        `on_change` is told whether all models are ready, whenever that changes; at first, they are not.
        """
        while True:
            await asyncio.gather(*(self._look(model) for model in self._models.values()))
            note_engines(self._states.values())
            ready = all(state.ready for state in self._states.values())
            if ready is not self._ready:
                self._ready = ready
                _log.info("models are ready" if ready else "models are not ready")
                on_change(ready)
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

    async def _look(self, model: ServedModel) -> None:
        cache_use: float | None = None
        try:
            answer = await self._triton.describe(model.id)
            description, state = describe(answer), _state(model.id, answer)
            cache_use = answer["load"]["kv_cache_use"]
        except Failure as failure:
            if self._ready:
                _log.warning("model %s: %s", model.id, failure.message)
            description, state = None, pb.ModelStatus(model=model.id)
        except Exception:  # noqa: BLE001  # whatever it was, health must go on being true
            _log.exception("model %s described itself in a way that was not understood", model.id)
            description, state = None, pb.ModelStatus(model=model.id)
        note_cache_use(model.id, cache_use)
        model.description, self._states[model.id] = description, state
        if description is not None:
            model.described_at = time.monotonic()


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
