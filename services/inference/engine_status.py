"""How the models' engines are: asked of Triton at an interval, for health, descriptions and status streams alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure
from services.inference.served_model import ServedModel, describe
from services.triton_client import TritonClient

_log: Final = logging.getLogger(__name__)


class EngineStatus:
    """The latest state of every model."""

    def __init__(
        self, triton: TritonClient, models: Mapping[str, ServedModel], on_change: Callable[[bool], None]
    ) -> None:
        """`on_change` is told whether all models are ready, at the first look and whenever that changes."""
        self._triton: Final = triton
        self._models: Final = models
        self._on_change: Final = on_change
        self._states: dict[str, pb.ModelStatus] = {i: pb.ModelStatus(model=i) for i in models}
        self._ready: bool | None = None

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds, and five times as often while something is not ready; forever."""
        while True:
            await self.refresh()
            await asyncio.sleep(interval if self._ready else interval / 5)

    async def refresh(self) -> None:
        """Look now."""
        await asyncio.gather(*(self._look(model) for model in self._models.values()))
        ready = all(state.ready for state in self._states.values())
        if ready is not self._ready:
            self._ready = ready
            _log.info("models are ready" if ready else "models are not ready")
            self._on_change(ready)

    def states(self) -> list[pb.ModelStatus]:
        """The latest state of each model, by id."""
        return [self._states[model_id] for model_id in sorted(self._states)]

    async def _look(self, model: ServedModel) -> None:
        try:
            answer = await self._triton.describe(model.id)
        except Failure as failure:
            if self._ready:
                _log.warning("model %s: %s", model.id, failure.message)
            model.description = None
            self._states[model.id] = pb.ModelStatus(model=model.id)
            return
        model.description = describe(answer)
        self._states[model.id] = _state(model.id, answer)


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
    )
    if load["last_token_age_s"] is not None:
        state.last_token_age.FromMicroseconds(int(load["last_token_age_s"] * 1e6))
    return state
