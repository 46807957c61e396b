"""Sends the output of a request from an engine's thread to Triton."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import triton_python_backend_utils as pb_utils

from services.inference.triton_backend.contract import Tokens, Usage
from services.worker.triton_kit.request_error import RequestError
from services.worker.triton_kit.triton_model import error_response

CANCELLATION_POLL_SECONDS: Final = 0.01
CANCELLATION_POLL_SECONDS_PER_STREAM: Final = 0.00025
"""Added to the interval for each stream, because asking Triton takes about 0.1 ms."""

T = TypeVar("T")

WATCH_SECONDS: Final = 0.1
"""The time between two looks at the streams of steps."""
IDLE_WATCH_SECONDS: Final = 0.5
"""The longest time until the first look at a new stream of steps."""

PROGRESS_SECONDS: Final = 2.0
"""The time between two responses without tokens while a prompt is being read."""


class Scheduled(Protocol):
    """Output that the sender sends."""

    def send(self) -> None:
        """Send what has gathered, as one response."""


class Watched(Protocol):
    """A stream that the sender watches while nothing may be sent on it."""

    def look(self) -> bool:
        """Note whether the reader is gone. Return whether the stream goes on."""

    def close(self) -> None:
        """End the stream."""


class Sender:
    """A thread that sends the tokens of all streams. While it is busy with one stream, tokens of the others gather."""

    def __init__(self) -> None:
        self.live: weakref.WeakSet[Stream] = weakref.WeakSet()
        """The streams of requests that an engine still works on."""
        self._streams: SimpleQueue[Scheduled | None] = SimpleQueue()
        self._watched: list[Watched] = []
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def schedule(self, stream: Scheduled) -> None:
        """Send the tokens of `stream`, after the streams that were scheduled before."""
        self._streams.put(stream)

    def watch(self, stream: Watched) -> None:
        """Look at `stream` from time to time."""
        self._watched.append(stream)

    def close(self) -> None:
        """Send the remaining tokens, and stop the thread."""
        self._streams.put(None)
        self._thread.join()

    def _run(self) -> None:
        looked = 0.0
        while True:
            try:
                stream = self._streams.get(timeout=WATCH_SECONDS if self._watched else IDLE_WATCH_SECONDS)
            except Empty:
                pass
            else:
                if stream is None:
                    break
                self._try(stream.send)
            if self._watched and time.monotonic() - looked >= WATCH_SECONDS:
                looked = time.monotonic()
                for watched in list(self._watched):
                    # A look that raised says nothing about the stream.
                    if self._try(watched.look) is False:
                        self._watched.remove(watched)
        for watched in self._watched:
            self._try(watched.close)

    def _try(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the client is gone; the other streams must go on
            pb_utils.Logger.log_warn(f"a response could not be sent: {error}")
            return None


class Stream:
    """The sink of one request: gathers tokens and counts responses that the reader has not acknowledged."""

    def __init__(self, response_sender: Any, sender: Sender, *, window: int | None, name: str = "") -> None:
        """Create the sink of the request with the id `name`.

        `window` is the most responses that the reader has not acknowledged; None for any number.
        """
        self._name = name
        self._response_sender = response_sender
        self._sender = sender
        self._window = window
        self._lock = threading.Lock()
        self._pending: list[Tokens] = []
        self._scheduled = False
        self._sent = 0
        self._acknowledged = 0
        self._end: tuple[str, Usage] | RequestError | None = None
        self._cancelled = False
        self._cancellation_polled = 0.0
        self._progress_sent = time.monotonic()
        self._has_progress = False
        sender.live.add(self)

    def has_capacity(self) -> bool:
        """See Sink."""
        return self._window is None or self._sent + bool(self._pending) - self._acknowledged < self._window

    def is_cancelled(self) -> bool:
        """See Sink. Asking Triton crosses a process boundary, so that its answer is kept for a moment."""
        now = time.monotonic()
        interval = max(CANCELLATION_POLL_SECONDS, len(self._sender.live) * CANCELLATION_POLL_SECONDS_PER_STREAM)
        if not self._cancelled and now - self._cancellation_polled >= interval:
            self._cancellation_polled = now
            # `cancel` may be called while Triton is asked, and must not be overwritten.
            if self._response_sender.is_cancelled():
                self._cancelled = True
        return self._cancelled

    def note_progress(self) -> None:
        """See Sink."""
        now = time.monotonic()
        if now - self._progress_sent < PROGRESS_SECONDS or not self.has_capacity():
            return
        self._progress_sent = now
        with self._lock:
            self._has_progress = True
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            self._sender.schedule(self)

    def emit(self, tokens: Tokens) -> None:
        """See Sink."""
        with self._lock:
            self._pending.append(tokens)
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            self._sender.schedule(self)

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """See Sink."""
        self._close((finish_reason, usage), last)

    def fail(self, error: RequestError) -> None:
        """See Sink."""
        log_failure(self._name, error)
        self._close(error)

    def acknowledge(self, responses: int) -> None:
        """Note that the reader has read `responses` responses since the start."""
        self._acknowledged = max(self._acknowledged, responses)

    def cancel(self) -> None:
        """Note that the reader has cancelled the request."""
        self._cancelled = True

    def send(self) -> None:
        """Send the gathered tokens as one response. Only the sender's thread may call it."""
        with self._lock:
            pending, self._pending = self._pending, []
            has_progress, self._has_progress = self._has_progress, False
            end, self._scheduled = self._end, False
            self._sent += 1
        if isinstance(end, RequestError):
            if pending:
                self._response_sender.send(pb_utils.InferenceResponse(_token_tensors(pending)))
            self._response_sender.send(error_response(end), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        elif end is not None:
            finish_reason, usage = end
            tensors = [
                *_token_tensors(pending),
                _string("finish_reason", finish_reason),
                _string("usage", usage.to_json()),
            ]
            self._response_sender.send(
                pb_utils.InferenceResponse(tensors), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )
        elif pending or has_progress:
            self._response_sender.send(pb_utils.InferenceResponse([*_token_tensors(pending), *_cached(pending)]))

    def _close(self, end: tuple[str, Usage] | RequestError, last: Tokens | None = None) -> None:
        with self._lock:
            if last is not None:
                self._pending.append(last)
            self._end = end
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            self._sender.schedule(self)


def log_failure(name: str, error: RequestError) -> None:
    """Write an engine's failure into Triton's log, with the id of the request, which begins with its caller's id."""
    if error.reason == "ENGINE_FAILED":
        pb_utils.Logger.log_error(f"request {name!r}: {error}")


def respond_with_description(response_sender: Any, text: str) -> None:
    """Respond with the tensor `description` only."""
    response_sender.send(
        pb_utils.InferenceResponse([_string("description", text)]), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    )


def respond_empty(response_sender: Any) -> None:
    """Respond with an empty final response."""
    response_sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def respond_with_error(response_sender: Any, error: RequestError) -> None:
    """Respond with an error only."""
    response_sender.send(error_response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _token_tensors(batches: list[Tokens]) -> list[Any]:
    token_ids = [token_id for batch in batches for token_id in batch.token_ids]
    tensors = [pb_utils.Tensor("token_ids", np.array(token_ids, np.int32)), *_logprob_tensors(batches)]
    if prompts := [batch.prompt for batch in batches if batch.prompt is not None]:
        tensors += _logprob_tensors(prompts, prefix="prompt_")
    return tensors


def _logprob_tensors(batches: list[Tokens], *, prefix: str = "") -> list[Any]:
    tensors = []
    if batches and batches[0].logprobs is not None:
        logprobs = [logprob for batch in batches for logprob in batch.logprobs or ()]
        tensors.append(pb_utils.Tensor(f"{prefix}logprobs", np.array(logprobs, np.float32)))
    if batches and batches[0].top is not None:
        top = [pairs for batch in batches for pairs in batch.top or ()]
        width = max(map(len, top), default=0)
        ids = np.full((len(top), width), -1, np.int32)
        values = np.full((len(top), width), -np.inf, np.float32)
        for row, pairs in enumerate(top):
            for column, (token_id, logprob) in enumerate(pairs):
                ids[row, column], values[row, column] = token_id, logprob
        tensors += [
            pb_utils.Tensor(f"{prefix}top_token_ids", ids),
            pb_utils.Tensor(f"{prefix}top_logprobs", values),
        ]
    return tensors


def _cached(batches: list[Tokens]) -> list[Any]:
    counts = [batch.cached_tokens for batch in batches if batch.cached_tokens is not None]
    return [_string("usage", json.dumps({"cached_tokens": counts[0]}))] if counts else []


def _string(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode()], np.object_))
