"""The choices of one request, each a stream of its own in Triton, as one stream of what is ready."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice_requests import ChoiceRequests
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.runtime.failure import Failure, Reason
from services.worker.triton_client import EngineOutput, TritonClient

READ_AHEAD: Final = 64
"""Outputs that may wait for a slow reader; when they do, the engine pauses."""


SIGN_OF_LIFE_SECONDS: Final = 5.0
"""After so much silence of the engine, the caller hears that the request is still worked on."""


@dataclass(frozen=True)
class Timeouts:
    """How long the engine may take."""

    idle_seconds: float = 30.0
    """Between two tokens; and, before the first, between two signs that it lives."""
    first_token_seconds: float = 300.0
    """For the first token, the queue included."""


class Generation:
    """Runs the choices of a request. Entering its context starts the engine, leaving it stops the engine."""

    def __init__(
        self,
        triton: TritonClient,
        model: ServedModel,
        request: pb.GenerateRequest,
        prompt: Prompt,
        *,
        request_id: str,
        timeouts: Timeouts,
    ) -> None:
        """Of a checked request. `request_id` begins the ids of its requests to Triton."""
        self._timeouts: Final = timeouts
        self._silent_seconds = 0.0
        """Since the last output, or answer to a question, as far as the event loop has looked for one."""
        self._looked_at = time.monotonic()
        self._unanswered: dict[int, float] = {}
        """When the engine was asked for the choices of which it has given nothing since."""
        self._triton: Final = triton
        self._model: Final = model
        self._request: Final = request
        self._prompt: Final = prompt
        self._request_id: Final = request_id
        self._ready: Final[asyncio.Queue[tuple[int, EngineOutput | Exception]]] = asyncio.Queue(READ_AHEAD)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._lost: Failure | None = None
        """Why the engine will not answer any more."""
        self._running: set[int] = set()

    async def __aenter__(self) -> Self:
        self._model.open_requests.add(self._lose)
        for choice in range(max(1, self._request.n)):
            self._running.add(choice)
            self._tasks[choice] = asyncio.create_task(self._run(choice))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._model.open_requests.discard(self._lose)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @property
    def running(self) -> bool:
        """Whether more may come."""
        return bool(self._running)

    def stop(self, choice: int) -> None:
        """End one choice: nothing more of it is wanted."""
        self._running.discard(choice)
        self._unanswered.pop(choice, None)
        self._tasks[choice].cancel()

    async def outputs(self) -> AsyncIterator[dict[int, EngineOutput]]:
        """What the engine has made since the last time, by choice; nothing, now and then, while it makes nothing.

        Raises the Failure that ended a choice, and TIMEOUT when the engine is silent for too long.
        """
        interval = min(SIGN_OF_LIFE_SECONDS, self._timeouts.idle_seconds / 4)
        while self._running:
            try:
                async with asyncio.timeout(interval):
                    ready, failure = await self._wait()
            except TimeoutError:
                self._reject_silence(interval)
                yield {}
                continue
            self._silent_seconds = 0.0
            merged = {choice: _merged(outputs) for choice, outputs in ready.items()}
            self._running -= {choice for choice, output in merged.items() if output.finish_reason is not None}
            if merged:
                yield merged
            if failure is not None:
                raise failure

    async def _wait(self) -> tuple[dict[int, list[EngineOutput]], Exception | None]:
        """Everything that is there, and the failure behind it, if one is."""
        ready: dict[int, list[EngineOutput]] = {}
        if self._lost is not None and self._ready.empty():
            return ready, self._lost
        choice, item = await self._ready.get()
        while True:
            if isinstance(item, Exception):
                return ready, item
            if choice in self._running:
                ready.setdefault(choice, []).append(item)
            if self._ready.empty():
                return ready, None
            choice, item = self._ready.get_nowait()

    def _lose(self, failure: Failure) -> None:
        self._lost = failure
        # A full queue has no reader that waits; it sees the failure behind what it holds.
        with contextlib.suppress(asyncio.QueueFull):
            self._ready.put_nowait((next(iter(self._running), 0), failure))

    def _reject_silence(self, waited: float) -> None:
        # Not the time that has passed: while the event loop stands still, what the engine has said is not looked at.
        self._silent_seconds += waited
        now, limit = time.monotonic(), self._timeouts.idle_seconds
        asked = min(self._unanswered.values(), default=None)
        if asked is not None and now - asked > self._timeouts.first_token_seconds:
            self._silent_seconds, limit = now - asked, self._timeouts.first_token_seconds
        elif asked is not None and self._model.described_at > self._looked_at:
            # It may be in the queue or read a long prompt; an engine that lives says so when it is asked.
            self._silent_seconds = 0.0
        self._looked_at = now
        # The sum of intervals may be a little less than the limit.
        if self._silent_seconds >= limit * 0.99:
            message = f"the engine has been silent for {self._silent_seconds:.1f} s; try again"
            raise Failure(Reason.TIMEOUT, message, retry_after=1.0)

    def _note_asked(self, choice: int) -> None:
        self._unanswered[choice] = time.monotonic()

    async def _run(self, choice: int) -> None:
        requests = ChoiceRequests(
            self._triton,
            self._model,
            self._request,
            self._prompt,
            choice=choice,
            request_id=self._request_id,
            asking=partial(self._note_asked, choice),
        )
        try:
            async with contextlib.aclosing(requests.outputs()) as outputs:
                async for output in outputs:
                    self._model.generated_at = time.monotonic()
                    self._unanswered.pop(choice, None)
                    _reject_broken_off(output)
                    await self._ready.put((choice, output))
        except Exception as error:  # noqa: BLE001  # whatever it was, it ends the whole request, where it is waited for
            await self._ready.put((choice, error))


def _reject_broken_off(output: EngineOutput) -> None:
    if output.finish_reason not in (None, "stop", "length"):
        raise Failure(Reason.ENGINE_FAILED, f"the engine broke off the answer: {output.finish_reason}")


def _merged(outputs: Sequence[EngineOutput]) -> EngineOutput:
    """Several outputs of one choice as one."""
    if len(outputs) == 1:
        return outputs[0]
    return EngineOutput(
        token_ids=_joined(output.token_ids for output in outputs) or [],
        logprobs=_joined(output.logprobs for output in outputs),
        top_token_ids=_joined(output.top_token_ids for output in outputs),
        top_logprobs=_joined(output.top_logprobs for output in outputs),
        finish_reason=outputs[-1].finish_reason,
        usage=outputs[-1].usage,
        left_out=sum(output.left_out for output in outputs),
    )


def _joined(lists: Any) -> Any:
    """One list out of those that are there; None when none is."""
    present = [one for one in lists if one is not None]
    return [item for one in present for item in one] if present else None
