"""How the models' engines are: asked of Triton at an interval, for health and descriptions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from services.embeddings import metrics
from services.embeddings.served_model import ServedModel
from services.failure import Failure
from services.triton_client import DESCRIBE_SECONDS, TritonClient

WHILE_NOT_READY_SECONDS: Final = 0.2
_DESCRIBE: Final = {"params": [b'{"describe": true}']}
_log: Final = logging.getLogger(__name__)


class EngineStatus:
    """Keeps every model's description up to date."""

    def __init__(self, triton: TritonClient, models: Mapping[str, ServedModel], *, interval: float) -> None:
        """Looks every `interval` seconds."""
        self._triton: Final = triton
        self._models: Final = models
        self._interval: Final = interval
        self._ready = False
        self._said: dict[str, str] = {}

    async def run(self, on_change: Callable[[bool], None]) -> None:
        """Look again and again, forever.

        `on_change` is told whether all models are ready, whenever that changes; at first, they are not.
        """
        while True:
            await asyncio.gather(*(self._look(model) for model in self._models.values()))
            metrics.note_models(model.status() for model in self._models.values())
            ready = all(model.description is not None for model in self._models.values())
            if ready is not self._ready:
                self._ready = ready
                _log.info("models are ready" if ready else "models are not ready")
                on_change(ready)
            await asyncio.sleep(self._interval if ready else min(self._interval, WHILE_NOT_READY_SECONDS))

    async def _look(self, model: ServedModel) -> None:
        # The engine works on one batch after another, and this question waits for its turn: twice over is no wonder.
        seconds = DESCRIBE_SECONDS * 2
        try:
            answer = await self._triton.infer(model.id, _DESCRIBE, request_id="describe", seconds=seconds)
            model.description = model.understand(json.loads(answer["description"].string()))
            self._said.pop(model.id, None)
        except Failure as failure:
            self._lose(model, failure.message)
        except Exception as error:  # noqa: BLE001  # whatever it was, health must go on being true
            self._lose(model, str(error) or type(error).__name__)

    def _lose(self, model: ServedModel, why: str) -> None:
        model.description = None
        # The same trouble is told once.
        if self._said.get(model.id) != why:
            self._said[model.id] = why
            _log.warning("model %s: %s", model.id, why)
