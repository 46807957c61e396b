"""How the models' engines are: asked of Triton at an interval, for health and descriptions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from services.embeddings import metrics
from services.embeddings.served_model import EngineDescription, ServedModel
from services.runtime.failure import Failure, Reason
from services.runtime.silence import LOOKS
from services.worker.triton_client import DESCRIBE_SECONDS, DeadModelError, TritonClient

WHILE_NOT_READY_SECONDS: Final = 0.2
STALL_SECONDS: Final = 30.0
_DESCRIBE: Final = {"params": [b'{"describe": true}']}
_log: Final = logging.getLogger(__name__)


def _ignore(model_id: str, ready: bool) -> None:
    pass


class EngineStatus:
    """Keeps every model's description up to date."""

    def __init__(
        self,
        tritons: Mapping[str, TritonClient],
        models: Mapping[str, ServedModel],
        *,
        interval: float,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Looks every `interval` seconds at each model, in its own Triton of `tritons`.

        A model that does not answer for `stall_seconds` has lost its requests.
        """
        self._tritons: Final = tritons
        self._models: Final = models
        self._interval: Final = interval
        self._stall_seconds: Final = stall_seconds
        self._serving = False
        self._said: dict[str, str] = {}

    async def run(
        self, on_change: Callable[[bool], None], on_model_change: Callable[[str, bool], None] = _ignore
    ) -> None:
        """Look again and again, forever.

        `on_change` is told whether any model can answer, and `on_model_change` of each model whether it can, whenever that
        changes. At first, none can.
        """
        await asyncio.gather(*(self._follow(model, on_change, on_model_change) for model in self._models.values()))

    async def _follow(
        self, model: ServedModel, on_change: Callable[[bool], None], on_model_change: Callable[[str, bool], None]
    ) -> None:
        """Look at one model: a slow one holds up nobody's news of another one."""

        def note(description: EngineDescription | None) -> None:
            was_ready, model.description = model.description is not None, description
            metrics.note_models([model.status()])
            ready = description is not None
            if ready is not was_ready:
                _log.info("model %s is %s", model.id, "ready" if ready else "not ready")
                on_model_change(model.id, ready)
            serving = any(model.description is not None for model in self._models.values())
            if serving is not self._serving:
                self._serving = serving
                on_change(serving)

        while True:
            await self._look(model, note)
            ready = model.description is not None
            await asyncio.sleep(self._interval if ready else min(self._interval, WHILE_NOT_READY_SECONDS))

    async def _look(self, model: ServedModel, note: Callable[[EngineDescription | None], None]) -> None:
        triton, seconds = self._tritons[model.id], self._stall_seconds
        asking = asyncio.ensure_future(triton.infer(model.id, _DESCRIBE, request_id="describe", seconds=seconds))
        try:
            # The engine works on one batch after another, and this question waits for its turn: twice over is no wonder.
            for _ in range(LOOKS):
                # In parts, so that time in which this event loop stands still does not count.
                await asyncio.wait({asking}, timeout=DESCRIBE_SECONDS * 2 / LOOKS)
            if not asking.done():
                self._say(model, "it does not answer")
                note(None)
            answer = await asking
            note(model.understand(json.loads(answer["description"].string())))
            self._said.pop(model.id, None)
        except Failure as failure:
            self._say(model, failure.message)
            note(None)
            if isinstance(failure, DeadModelError) or failure.reason is Reason.TIMEOUT:
                message = f"the model {model.id} has stopped working on the request; try again in a few seconds"
                model.end_requests(Failure(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0))
        except Exception as error:  # noqa: BLE001  # whatever it was, health must go on being true
            self._say(model, str(error) or type(error).__name__)
            note(None)
        finally:
            asking.cancel()

    def _say(self, model: ServedModel, why: str) -> None:
        # The same trouble is told once.
        if self._said.get(model.id) != why:
            self._said[model.id] = why
            _log.warning("model %s: %s", model.id, why)
