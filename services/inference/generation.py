"""The choices of one request, each a stream of its own in Triton, as one stream of what is ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Self

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.prompt import Prompt
from services.inference.sampling import engine_params
from services.inference.served_model import ServedModel
from services.triton_client import EngineOutput, TritonClient

READ_AHEAD: Final = 64
"""Outputs that may wait for a slow reader; when they do, the engine pauses."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What the engine sent for one choice."""

    choice: int
    output: EngineOutput


class Generation:
    """Runs the choices of a request. Leaving its context stops the engine."""

    def __init__(self, triton: TritonClient, model: ServedModel, request: pb.GenerateRequest, prompt: Prompt) -> None:
        """Nothing is sent before `start`."""
        self._triton: Final = triton
        self._model: Final = model
        self._request: Final = request
        self._prompt: Final = prompt
        self._ready: Final[asyncio.Queue[Ready | BaseException]] = asyncio.Queue(READ_AHEAD)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, request_id: str) -> None:
        """Send every choice to Triton."""
        for choice in range(max(1, self._request.n)):
            self._tasks.append(asyncio.create_task(self._run(choice, f"{request_id}.{choice}")))

    def stop_choice(self, choice: int) -> None:
        """End one choice: its answer is complete."""
        self._tasks[choice].cancel()

    async def ready(self) -> list[Ready]:
        """Wait for output, and return everything that is there. Raises the Failure that ended a choice."""
        batch = [await self._ready.get()]
        while not self._ready.empty():
            batch.append(self._ready.get_nowait())
        for item in batch:
            if isinstance(item, BaseException):
                raise item
        return [item for item in batch if isinstance(item, Ready)]

    async def _run(self, choice: int, request_id: str) -> None:
        params = engine_params(self._request, self._model, room=self._prompt.room, choice=choice)
        outputs: AsyncGenerator[EngineOutput, None] = self._triton.generate(
            self._model.id, request_id=request_id, prompt_token_ids=self._prompt.token_ids, params=params
        )
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    await self._ready.put(Ready(choice, output))
        except Exception as error:  # noqa: BLE001  # whatever it was, it ends the whole request, where it is waited for
            await self._ready.put(error)
