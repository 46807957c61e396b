"""One stream of Triton for many requests: each response has the tokens of all of them since the previous response.

An engine decodes one token of every running request in a step. A response for each of them would cost Triton, and its
reader, many times as much as the token itself (docs/adr/0021).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import triton_python_backend_utils as pb_utils

from services.inference.triton_backend.contract import STREAM_ENDED, Tokens, Usage, invalid
from services.inference.triton_backend.stream import PROGRESS_SECONDS, Sender, log_failure
from services.worker.triton_kit.request_error import RequestError
from services.worker.triton_kit.triton_model import error_response

IDLE_SECONDS: Final = 1.0
"""A stream without requests ends after this time, so that it does not delay the end of a Triton that stops."""

_Entry = tuple[int, Tokens | None, dict[str, Any] | None]
"""The number of a request, its tokens, and its end."""


class StepStream:
    """The output of the requests of one reader, which opened the stream with a request of its own."""

    def __init__(self, response_sender: Any, sender: Sender) -> None:
        """Send with `response_sender`, from the thread of `sender`."""
        self.cancelled = False
        self._ended = False
        """Whether the last response was sent."""
        self._lock: Final = threading.Lock()
        self._response_sender: Final = response_sender
        self._sender: Final = sender
        self._entries: Final[deque[_Entry]] = deque()
        self._is_scheduled = False
        self._sinks: Final[dict[int, StepSink]] = {}
        self._idle_since = time.monotonic()

    def open(self, number: int, *, window: int | None, name: str = "") -> StepSink:
        """Return the sink of a new request with the id `name`.

        Raises RequestError for a stream that has ended, or a number in use.
        """
        with self._lock:
            if self._ended or self.cancelled:
                raise RequestError(STREAM_ENDED, "engine_parameters_not_valid", reason="the stream of steps has ended")
            if number in self._sinks:
                raise invalid(f"the stream of steps has a running request with the number {number}")
            sink = self._sinks[number] = StepSink(self, number, window=window, name=name)
        return sink

    def discard(self, number: int) -> None:
        """Forget a request that the engine has rejected."""
        self._sinks.pop(number, None)
        self._idle_since = time.monotonic()

    def acknowledge(self, responses: Iterable[tuple[int, int]]) -> None:
        """Note the number of entries that the reader has read of each request, since the request's start."""
        for number, count in responses:
            if (sink := self._sinks.get(number)) is not None:
                sink.acknowledge(count)

    def cancel(self, numbers: Iterable[int] | None = None) -> None:
        """Note that the reader has cancelled requests, or with None the whole stream."""
        if numbers is None:
            self.cancelled = True
            self.schedule()
            return
        for number in numbers:
            if (sink := self._sinks.get(number)) is not None:
                sink.cancel()

    def put(self, entry: _Entry) -> None:
        """Add an entry to the next response. Any thread may call it."""
        # Appending is atomic, and `send` resets the mark before it reads: no entry stays behind.
        self._entries.append(entry)
        if not self._is_scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Have the sender call `send`."""
        self._is_scheduled = True
        self._sender.schedule(self)

    def look(self) -> bool:
        """Note whether the reader is gone, and end an idle stream. Return whether the stream goes on.

        Only the sender's thread may call it. It asks Triton, which takes about 0.1 ms.
        """
        if not self._ended and not self.cancelled and self._response_sender.is_cancelled():
            self.cancelled = True
        if self.cancelled or time.monotonic() - self._idle_since >= IDLE_SECONDS:
            self._end_if_idle()
        return not self._ended

    def close(self) -> None:
        """End the stream, whose requests have all ended."""
        self.cancelled = True
        self._end_if_idle()

    def send(self) -> None:
        """Send the gathered entries as one response. Only the sender's thread may call it."""
        self._is_scheduled = False
        entries = []
        while self._entries:
            entries.append(self._entries.popleft())
        for number, _, end in entries:
            if end is not None:
                self.discard(number)
        if entries and not self.cancelled:
            try:
                self._response_sender.send(pb_utils.InferenceResponse(_tensors(entries)))
            except Exception:
                # What is lost cannot be sent again, and answers with a gap must not look complete.
                self._break_off()
                raise
        if self.cancelled:
            self._end_if_idle()

    def _break_off(self) -> None:
        """End the stream with an error. The engine drops its requests, and the reader opens another stream."""
        with self._lock:
            self.cancelled = True
            if self._ended:
                return
            self._ended = True
        error = RequestError("ENGINE_FAILED", "engine_failed", reason="a step could not be sent")
        try:
            self._response_sender.send(error_response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:
            # `look` tries to end it again.
            self._ended = False
            raise

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._sinks or self._ended:
                return
            self._ended = True
        self._response_sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class StepSink:
    """The sink of one request of a stream."""

    def __init__(self, stream: StepStream, number: int, *, window: int | None, name: str) -> None:
        """Create the sink of the request with the id `name`.

        `window` is the most entries that the reader has not acknowledged; None for any number.
        """
        self._name: Final = name
        self._stream: Final = stream
        self._number: Final = number
        self._window: Final = window
        self._sent = 0
        self._acknowledged = 0
        self._is_cancelled = False
        self._progress_sent = time.monotonic()

    def has_capacity(self) -> bool:
        """See Sink."""
        return self._window is None or self._sent - self._acknowledged < self._window

    def is_cancelled(self) -> bool:
        """See Sink."""
        return self._is_cancelled or self._stream.cancelled

    def note_progress(self) -> None:
        """See Sink."""
        now = time.monotonic()
        if now - self._progress_sent >= PROGRESS_SECONDS and self.has_capacity():
            self._progress_sent = now
            self._put(None, None)

    def emit(self, tokens: Tokens) -> None:
        """See Sink."""
        self._sent += 1
        self._stream.put((self._number, tokens, None))

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """See Sink."""
        self._put(last, {"finish_reason": finish_reason, "usage": usage.as_json()})

    def fail(self, error: RequestError) -> None:
        """See Sink."""
        log_failure(self._name, error)
        self._put(None, {"error": str(error)})

    def acknowledge(self, responses: int) -> None:
        """Note that the reader has read `responses` entries since the start."""
        self._acknowledged = max(self._acknowledged, responses)

    def cancel(self) -> None:
        """Note that the reader has cancelled the request."""
        self._is_cancelled = True

    def _put(self, tokens: Tokens | None, end: dict[str, Any] | None) -> None:
        self._sent += 1
        self._stream.put((self._number, tokens, end))


def _tensors(entries: list[_Entry]) -> list[Any]:
    numbers: list[int] = []
    counts: list[int] = []
    token_ids: list[int] = []
    begins: list[bytes] = []
    ends: list[bytes] = []
    has_logprobs = False
    for number, tokens, end in entries:
        numbers.append(number)
        if tokens is None:
            counts.append(0)
        else:
            ids = tokens.token_ids
            counts.append(len(ids))
            token_ids += ids
            has_logprobs = has_logprobs or tokens.logprobs is not None
            if tokens.cached_tokens is not None:
                begins.append(_json({"request": number, "cached_tokens": tokens.cached_tokens}))
        if end is not None:
            ends.append(_json({"request": number, **end}))
    tensors = [
        pb_utils.Tensor("step_requests", np.array(numbers, np.int32)),
        pb_utils.Tensor("step_counts", np.array(counts, np.int32)),
        pb_utils.Tensor("token_ids", np.array(token_ids, np.int32)),
    ]
    if has_logprobs:
        tensors += _logprob_tensors(entries)
    if begins:
        tensors.append(pb_utils.Tensor("step_begins", np.array(begins, np.object_)))
    if ends:
        tensors.append(pb_utils.Tensor("step_ends", np.array(ends, np.object_)))
    return tensors


def _json(note: dict[str, Any]) -> bytes:
    return json.dumps(note, separators=(",", ":")).encode()


def _logprob_tensors(entries: list[_Entry]) -> list[Any]:
    """Return the log probabilities of all tokens: NaN, and -1 alternatives, for tokens whose request wants none."""
    logprobs: list[float] = []
    top_counts: list[int] = []
    top: list[tuple[int, float]] = []
    for _, tokens, _ in entries:
        if tokens is None:
            continue
        count = len(tokens.token_ids)
        logprobs += [float("nan")] * count if tokens.logprobs is None else tokens.logprobs
        if tokens.top is None:
            top_counts += [-1] * count
            continue
        for pairs in tokens.top:
            top_counts.append(len(pairs))
            top += pairs
    return [
        pb_utils.Tensor("logprobs", np.array(logprobs, np.float32)),
        pb_utils.Tensor("step_top_counts", np.array(top_counts, np.int32)),
        pb_utils.Tensor("step_top_token_ids", np.array([token_id for token_id, _ in top], np.int32)),
        pb_utils.Tensor("step_top_logprobs", np.array([logprob for _, logprob in top], np.float32)),
    ]
