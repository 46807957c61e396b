"""The health of a Triton's only model, queried from the model itself because Triton reports dead models as ready."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from services.runtime.failure import Failure, Reason
from services.stack.supervisor import FaultyProcessError
from services.worker.triton_client import TritonClient
from services.worker.triton_failures import DeadModelError

READY_SECONDS: Final = 2.0
UNREACHABLE_SECONDS: Final = 5.0
DEAD: Final = "the model's process has died"
_DESCRIBE: Final = {"params": [b'{"describe": true}']}


class ModelHealth:
    """The health of one model, by its description and the progress of its requests."""

    def __init__(self, endpoint: str, model: str, *, stall_seconds: float, is_chat: bool) -> None:
        """Query `model` of the Triton at `endpoint`.

        A model that is silent or makes no progress with its requests for `stall_seconds` is faulty.
        """
        self._client: Final = TritonClient(endpoint)
        self._model: Final = model
        self._stall_seconds: Final = stall_seconds
        self._is_chat: Final = is_chat
        self._reached = 0.0

    async def is_ready(self) -> bool:
        """Return whether the model answers.

        Raises:
            FaultyProcessError: The model's process has died. Triton does not start another one.
        """
        try:
            await self._describe(READY_SECONDS)
        except DeadModelError:
            raise FaultyProcessError(DEAD) from None
        except Failure:
            return False
        self._reached = time.monotonic()
        return True

    async def find_fault(self) -> str | None:
        """Return why the model cannot continue, or None if it can."""
        try:
            description = await self._describe(self._stall_seconds)
        except Failure as failure:
            # A Triton that is starting or stopping may be unreachable for a moment.
            is_away = failure.reason is Reason.MODEL_UNAVAILABLE and not isinstance(failure, DeadModelError)
            if is_away and time.monotonic() - self._reached < UNREACHABLE_SECONDS:
                return None
            if failure.reason is Reason.TIMEOUT:
                return f"the model has not answered for {self._stall_seconds:g} s"
            return DEAD if isinstance(failure, DeadModelError) else str(failure)
        self._reached = time.monotonic()
        age = description.get("load", {}).get("step_age_s")
        if age is not None and age >= self._stall_seconds:
            return f"the engine has made no progress with its requests for {age:.1f} s"
        return None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _describe(self, seconds: float) -> dict[str, Any]:
        if self._is_chat:
            return await self._client.describe(self._model, seconds=seconds)
        outputs = await self._client.infer(self._model, _DESCRIBE, request_id="health", seconds=seconds)
        return dict(json.loads(outputs["description"].string()))
