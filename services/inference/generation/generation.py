"""Merges the choices of one request, each a stream of its own in Triton, into one stream of outputs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice_requests import ChoiceRequests
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.inference.request.prompts import number_of_choices
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.step_stream import TokenSink
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput

READ_AHEAD: Final = 64
"""The most outputs that wait for a slow reader; then the engine pauses."""
HEARTBEAT_SECONDS: Final = 5.0
"""Time without output after which the caller gets a heartbeat: the request is still worked on."""


@dataclass(frozen=True)
class Timeouts:
    """Timeouts for the engine."""

    idle_seconds: float = 30.0
    """The longest silence between two tokens, or before the first token between two descriptions of the engine."""
    first_token_seconds: float = 300.0
    """The longest time before the first token without progress of the prompt, the queue included."""


class Generation:
    """Runs the choices of a request. Entering its context starts the engine, leaving it stops the engine."""

    def __init__(
        self,
        triton: TritonClient,
        model: ServedModel,
        request: pb.GenerateRequest,
        prompts: Sequence[Prompt],
        *,
        request_id: str,
        timeouts: Timeouts,
    ) -> None:
        """Prepare the generation of a checked request. `request_id` is the prefix of its requests' ids in Triton.

        `prompts` are all of its prompts; each has `n` choices, which are numbered in the prompts' order.
        """
        self._timeouts: Final = timeouts
        self._silent_seconds = 0.0
        """The engine's silence so far, without the time in which the event loop was blocked."""
        self._checked_at = time.monotonic()
        self._unanswered: dict[int, float] = {}
        """The time of the last request or its last progress, for each choice without tokens since then."""
        self._triton: Final = triton
        self._model: Final = model
        self._request: Final = request
        self._prompts: Final = prompts
        self._request_id: Final = request_id
        self._ready: Final[asyncio.Queue[tuple[int, EngineOutput | Exception | None]]] = asyncio.Queue(READ_AHEAD)
        """Outputs by choice; None says that a choice was stopped."""
        self._sinks: Mapping[int, TokenSink] = {}
        self._is_waiting = False
        """Whether the reader of `outputs` waits for the next one."""
        self._taken_at = 0.0
        """When a sink last took tokens, on the monotonic clock in seconds."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failure: Failure | None = None
        """The reason why the engine will send no more outputs."""
        self._running: set[int] = set()

    def offer_tokens_to(self, sinks: Mapping[int, TokenSink]) -> None:
        """Offer tokens that arrive while the reader of `outputs` waits to the sink of their choice.

        A sink must `claim` them first. To be called before the generation is entered.
        """
        self._sinks = sinks

    def claim(self, choice: int) -> bool:
        """Return whether a sink may take tokens of a choice, and note that it does.

        It may if the choice runs, all outputs so far were read, and their reader waits for the next one.
        """
        if not self._is_waiting or choice not in self._running or not self._ready.empty():
            return False
        self._taken_at = self._model.generated_at = time.monotonic()
        if self._unanswered:
            self._unanswered.pop(choice, None)
        return True

    async def __aenter__(self) -> Self:
        self._model.open_requests.add(self._end)
        for choice in range(number_of_choices(self._request)):
            self._running.add(choice)
            self._tasks[choice] = asyncio.create_task(self._run(choice))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._model.open_requests.discard(self._end)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @property
    def running(self) -> bool:
        """Whether there may be more outputs."""
        return bool(self._running)

    def stop(self, choice: int) -> None:
        """Cancel one choice, whose further outputs are not needed."""
        self._running.discard(choice)
        self._unanswered.pop(choice, None)
        self._tasks[choice].cancel()
        if self._is_waiting and not self._running:
            # The reader waits for an output that will not come.
            with contextlib.suppress(asyncio.QueueFull):
                self._ready.put_nowait((choice, None))

    async def outputs(self) -> AsyncIterator[dict[int, EngineOutput]]:
        """Yield the outputs since the previous ones, merged by choice, or an empty mapping as a heartbeat.

        A mapping may also be empty if a sink has taken the last tokens. Raises the Failure that ended a choice, and
        TIMEOUT when the engine is silent for too long.
        """
        interval = min(HEARTBEAT_SECONDS, self._timeouts.idle_seconds / 4)
        seconds = interval
        while self._running:
            try:
                async with asyncio.timeout(seconds):
                    ready, failure = await self._wait()
            except TimeoutError:
                if not self._running:
                    # A sink has stopped the last choice in the same turn of the event loop.
                    yield {}
                    return
                quiet = time.monotonic() - self._taken_at
                if quiet < interval:
                    # A sink has taken tokens meanwhile.
                    self._silent_seconds, seconds = 0.0, interval - quiet
                    continue
                seconds = interval
                self._check_silence(interval)
                yield {}
                continue
            self._silent_seconds, seconds = 0.0, interval
            merged = {choice: _merged(outputs) for choice, outputs in ready.items()}
            self._running -= {choice for choice, output in merged.items() if output.finish_reason is not None}
            if merged or not self._running:
                yield merged
            if failure is not None:
                raise failure

    async def _wait(self) -> tuple[dict[int, list[EngineOutput]], Exception | None]:
        """Wait for outputs, and return all that are ready, by choice, and the failure behind them, if there is one."""
        ready: dict[int, list[EngineOutput]] = {}
        if self._failure is not None and self._ready.empty():
            return ready, self._failure
        self._is_waiting = True
        try:
            choice, item = await self._ready.get()
        finally:
            self._is_waiting = False
        while True:
            if isinstance(item, Exception):
                return ready, item
            if item is not None and choice in self._running:
                ready.setdefault(choice, []).append(item)
            if self._ready.empty():
                return ready, None
            choice, item = self._ready.get_nowait()

    def _end(self, failure: Failure) -> None:
        self._failure = failure
        # No reader waits for a full queue; the reader finds the failure behind the queued outputs.
        with contextlib.suppress(asyncio.QueueFull):
            self._ready.put_nowait((next(iter(self._running), 0), failure))

    def _check_silence(self, waited: float) -> None:
        """Raise TIMEOUT if the engine has been silent for too long, after `waited` more seconds without output.

        A retry makes no sense where the engine works, but did not come to this request.
        """
        # Not the difference of two clock readings: the engine's outputs are not read while the event loop is blocked.
        self._silent_seconds += waited
        now, limit = time.monotonic(), self._timeouts.idle_seconds
        requested = min(self._unanswered.values(), default=None)
        if requested is not None and now - requested > self._timeouts.first_token_seconds:
            message = Message("engine_not_begun", seconds=f"{now - requested:.0f}")
            raise Failure(Reason.TIMEOUT, message)
        if requested is not None and self._model.described_at > self._checked_at:
            # The request may be queued, or have a long prompt. The engine has described itself, so that it works.
            self._silent_seconds = 0.0
        self._checked_at = now
        # A tolerance of 1 %: the sum of the intervals may be a little less than the limit.
        if self._silent_seconds >= limit * 0.99:
            message = Message("engine_silent", seconds=f"{self._silent_seconds:.1f}")
            raise Failure(Reason.TIMEOUT, message, retry_after=1.0)

    def _note_progress(self, choice: int) -> None:
        self._unanswered[choice], self._silent_seconds = time.monotonic(), 0.0

    async def _run(self, choice: int) -> None:
        # A choice of a further prompt has the seed that it would have in a request of its own.
        prompt, choice_of_prompt = divmod(choice, max(1, self._request.n))
        requests = ChoiceRequests(
            self._triton,
            self._model,
            self._request,
            self._prompts[prompt],
            choice=choice_of_prompt,
            request_id=f"{self._request_id}.{prompt}" if prompt else self._request_id,
            on_request=partial(self._note_progress, choice),
            sink=self._sinks.get(choice),
        )
        try:
            async with contextlib.aclosing(requests.outputs()) as outputs:
                async for output in outputs:
                    self._model.generated_at = time.monotonic()
                    if output.is_progress:
                        self._note_progress(choice)
                        continue
                    self._unanswered.pop(choice, None)
                    _check_finish(output)
                    await self._ready.put((choice, output))
        except Exception as error:  # noqa: BLE001  # the reader of the queue raises it, and it ends the request
            await self._ready.put((choice, error))


def _check_finish(output: EngineOutput) -> None:
    if output.finish_reason not in (None, "stop", "length"):
        problem = f"it broke off the answer: {output.finish_reason}"
        raise Failure(Reason.ENGINE_FAILED, Message("engine_failed", reason=problem))


def _merged(outputs: Sequence[EngineOutput]) -> EngineOutput:
    """Return several outputs of one choice as one."""
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
        prompt=next((output.prompt for output in outputs if output.prompt is not None), None),
        cached_tokens=next((output.cached_tokens for output in outputs if output.cached_tokens is not None), None),
    )


def _joined(lists: Any) -> Any:
    """Return the concatenation of the lists that are not None, or None if all are None."""
    present = [items for items in lists if items is not None]
    return [item for items in present for item in items] if present else None
