from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tensorrt_llm.sampling_params import SamplingParams


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    _last_token_ids_len: int = field(default=0, init=False, repr=False)

    @property
    def token_ids_diff(self) -> list[int]:
        return self.token_ids[self._last_token_ids_len :]


@dataclass(frozen=True, slots=True)
class Response:
    """A message from the engine's thread to a RequestOutput."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    reason: str | None = None
    """END_ID, STOP_WORDS, LENGTH or CANCELLED in the last response of a request; empty for a missing reason."""
    trim: int = 0
    index: int = 0
    """The index of the choice. The others are unchanged."""
    error: BaseException | None = None
    reading_raises: str = ""
    """The name of a built-in exception that reading this response raises, although the request goes on."""


class RequestOutput:
    """The state of a request: one object, which is changed in place and yielded after each response."""

    def __init__(self, params: SamplingParams, prompt_token_ids: list[int], *, cached_tokens: int) -> None:
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [CompletionOutput(index) for index in range(params.n)]
        self.choices_left = params.n
        self.cached_tokens = cached_tokens
        self._on_abort: list[Callable[[], None]] = []
        self._params = params
        self._done = False
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._queue: asyncio.Queue[Response] = asyncio.Queue()

    @property
    def finished(self) -> bool:
        return self._done

    def on_abort(self, callback: Callable[[], None]) -> None:
        self._on_abort.append(callback)

    def abort(self) -> None:
        assert self._on_abort
        for callback in self._on_abort:
            callback()

    def put(self, response: Response) -> None:
        """Pass a response to the event loop. Called by the engine's thread."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, response)

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self._done:
            raise StopAsyncIteration
        assert self._loop is not None, "The asyncio event loop was not present during initialization"
        self._handle(await self._queue.get())
        return self

    def _handle(self, response: Response) -> None:
        if response.error is not None:
            self._done = True
            raise response.error
        if response.reading_raises:
            raise getattr(builtins, response.reading_raises)("logprobs and token_ids differ in length")
        output = self.outputs[response.index]
        output._last_token_ids_len = len(output.token_ids)
        output.token_ids.extend(response.token_ids)
        output.logprobs.extend(response.logprobs)
        self._done = response.reason is not None
        match response.reason:
            case "CANCELLED":
                output.finish_reason = "cancelled"
            case "NO_OUTPUTS":
                self.outputs = []
            case "TIMED_OUT":
                output.finish_reason = "timeout"
            case "LENGTH":
                output.finish_reason = "length"
            case "END_ID":
                output.finish_reason = "stop"
            case "STOP_WORDS":
                output.finish_reason = "stop"
                self._cut_stop_words(output)
        if response.trim:
            output.token_ids = output.token_ids[: -response.trim]

    def _cut_stop_words(self, output: CompletionOutput) -> None:
        for reason, ids in self._params.stop_words():
            if output.token_ids[-len(ids) :] == ids:
                output.stop_reason = reason
                if not self._params.include_stop_str_in_output:
                    # The log probabilities keep their length.
                    output.token_ids = output.token_ids[: -len(ids)]
                return
