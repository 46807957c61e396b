"""Polls the engines of language models in Triton, for health, descriptions and status streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.metrics import note_cache_use, note_engines
from services.inference.model.served_model import ServedModel, describe
from services.worker.engine_poll import WHILE_NOT_READY_SECONDS, EnginePoll, StalledError

STALL_SECONDS: Final = 20.0


class EngineStatus(EnginePoll[ServedModel]):
    """Keeps the description and the state of every language model up to date. One poll serves all watchers of a model.

    An engine whose process answers has lost its requests, too, when it makes no progress with them for `stall_seconds`.
    """

    async def _ask(self, model: ServedModel) -> Mapping[str, Any]:
        return await self._tritons[model.id].describe(model.id, seconds=self._stall_seconds)

    def _note(self, model: ServedModel, answer: Mapping[str, Any] | None) -> None:
        if answer is None:
            model.description, model.state = None, pb.ModelStatus(model=model.id)
            note_cache_use(model.id, None)
        else:
            self._check_progress(answer)
            model.description, model.state = describe(answer), _state(model.id, answer)
            note_cache_use(model.id, answer["load"]["kv_cache_use"])
        note_engines([model.state])

    def _check_progress(self, answer: Mapping[str, Any]) -> None:
        # Engines that were loaded by an earlier release do not report it.
        age = answer["load"].get("step_age_s")
        if age is not None and age >= self._stall_seconds:
            raise StalledError(age)

    async def _is_working(self, model: ServedModel) -> bool:
        # First read the messages that arrived while the event loop was blocked.
        await asyncio.sleep(WHILE_NOT_READY_SECONDS)
        return time.monotonic() - model.generated_at < self._stall_seconds + WHILE_NOT_READY_SECONDS


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
        # A model that was written by an earlier release does not count them.
        slow_steps_total=load.get("slow_steps_total", 0),
    )
    if load["last_token_age_s"] is not None:
        state.last_token_age.FromMicroseconds(int(load["last_token_age_s"] * 1e6))
    return state
