"""Polls the engines of language models in Triton, for health, descriptions and status streams."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.metrics import note_cache, note_engines
from services.inference.model.served_model import EngineDescription, ServedModel, describe
from services.worker.engine_poll import WHILE_NOT_READY_SECONDS, EnginePoll, StalledError

STALL_SECONDS: Final = 20.0
_log: Final = logging.getLogger(__name__)


class EngineStatus(EnginePoll[ServedModel]):
    """Keeps the description and the state of every language model up to date. One poll serves all watchers of a model.

    An engine whose process answers has lost its requests, too, when it makes no progress with them for `stall_seconds`.
    """

    async def _ask(self, model: ServedModel) -> Mapping[str, Any]:
        return await self._tritons[model.id].describe(model.id, seconds=self._stall_seconds)

    def _note(self, model: ServedModel, answer: Mapping[str, Any] | None) -> None:
        if answer is None:
            model.description, model.state = None, pb.ModelStatus(model=model.id)
            note_cache(model.id, use=None, hit_rate=None)
        else:
            self._check_progress(answer)
            description = describe(answer)
            if model.description is None:
                _report_missing_defaults(model, description)
            model.description, model.state = description, _state(model.id, answer)
            load = answer["load"]
            note_cache(model.id, use=load["kv_cache_use"], hit_rate=load.get("prefix_cache_hit_rate"))
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


def _report_missing_defaults(model: ServedModel, description: EngineDescription) -> None:
    """Log which defaults of the model's entry have no effect: its answers differ from what the entry intends."""
    missing = sorted(model.spec.sampling.model_dump(exclude_none=True).keys() - description.supported_parameters)
    if missing:
        names = ", ".join(missing)
        _log.warning("model %s: %s does not support its defaults: %s", model.id, description.version, names)


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
