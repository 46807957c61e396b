"""Polls the engines of embedding models in Triton, for health and descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from services.embeddings import metrics
from services.embeddings.served_model import ServedModel
from services.worker.engine_poll import EnginePoll
from services.worker.triton_client import DESCRIBE_SECONDS

STALL_SECONDS: Final = 30.0
_DESCRIBE: Final = {"params": [b'{"describe": true}']}


class EngineStatus(EnginePoll[ServedModel]):
    """Keeps the description of every embedding model up to date."""

    answer_seconds: ClassVar[float] = 2 * DESCRIBE_SECONDS
    """Longer than by default, because an engine works on one batch after another, and a request to describe waits."""

    async def _ask(self, model: ServedModel) -> Mapping[str, Any]:
        answer = await self._tritons[model.id].infer(
            model.id, _DESCRIBE, request_id="describe", seconds=self._stall_seconds
        )
        return dict(json.loads(answer["description"].string()))

    def _note(self, model: ServedModel, answer: Mapping[str, Any] | None) -> None:
        model.description = None if answer is None else model.read_description(answer)
        metrics.note_models([model.status()])
        metrics.LOAD_RATIO.labels(model.id).set(model.load_ratio())
