"""Plays recorded token ids at recorded times: for tests, load and demonstrations, where the tokens must be known.

Every parameter is accepted. Parameters of sampling have no effect, because the tokens are recorded. With `min_tokens`
and `ignore_eos`, a recording is repeated if it ends too early.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
import time
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.inference.triton_backend.contract import (
    ALL_PARAMETERS,
    VISION,
    Load,
    Request,
    Sink,
    Tokens,
    Usage,
    output_limit,
)
from services.inference.triton_backend.engines.recordings import Recording, read
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.prompt_images import reject_misplaced
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

CANCELLATION_POLL_SECONDS: Final = 0.1
VERSION: Final = "1"


def create(arguments: dict[str, Any]) -> ReplayEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError or ValueError with the reason."""
    return ReplayEngine(**arguments)


@dataclass(slots=True)
class _Playback:
    request: Request
    sink: Sink
    recording: Recording
    limit: int
    """The most tokens to play."""
    usage: Usage
    started: float = 0.0
    """When it got its slot, moved forward by pauses, on the monotonic clock in seconds."""
    played: int = 0
    group: int = 0
    """The number of tokens that are played at the end of the next group."""
    due_s: float = 0.0
    """Seconds from `started` to the next group of tokens, or to the end."""
    first_token: float | None = None

    def prepare_group(self) -> None:
        """Find out the next group, after the last one was played."""
        recording, played = self.recording, self.played
        length = len(recording.token_ids)
        if not length:
            self.group, self.due_s = 0, recording.start_ms / 1000
            return
        end = played + recording.tokens_per_response
        if end - played > 1:
            end = min(end, (played // length + 1) * length)
        self.group = min(self.limit, end)
        self.due_s = recording.due_ms(self.group - 1) / 1000


class ReplayEngine:
    """An engine whose thread plays all requests from a heap of due times."""

    name = "replay"
    version = VERSION
    structured_output_library = ""
    structured_output_library_version = ""

    def __init__(
        self,
        *,
        recordings: str,
        context_length: int = 4096,
        slots: int = 8,
        max_queued: int = 1000,
        step_ms: float = 0.0,
        unsupported_parameters: tuple[str, ...] | list[str] = (),
        image_token_id: int | None = None,
    ) -> None:
        """Play the recordings in the file `recordings`; see Recording.

        `unsupported_parameters` are rejected, to simulate an engine with fewer features. Images are accepted if there
        is an `image_token_id`, the token that stands for an image in a prompt.

        With `step_ms`, requests begin at multiples of it, so that requests with the same interval get their tokens
        together, as from an engine that decodes all sequences in one step.

        Raises:
            ValueError: `unsupported_parameters` names a parameter that does not exist.
        """
        self._step: Final = step_ms / 1000
        self.context_length = context_length
        self.slots = slots
        if unknown := set(unsupported_parameters) - ALL_PARAMETERS:
            raise ValueError(f"unsupported_parameters: there is no parameter {', '.join(sorted(unknown))}")
        vision = VISION if image_token_id is not None else frozenset()
        self.supported_parameters = (ALL_PARAMETERS | vision) - set(unsupported_parameters)
        self._image_token_id: Final = image_token_id
        self._recordings = read(Path(recordings))
        self._waiting: WaitingQueue[_Playback] = WaitingQueue(limit=max_queued)
        self._running: dict[int, _Playback] = {}
        self._due: list[tuple[float, int, _Playback]] = []
        self._paused: list[_Playback] = []
        self._order = itertools.count()
        self._meter = LoadMeter()
        self._failed: RequestError | None = None
        self._closing = False
        self._next_sweep = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        if request.text_input:
            raise RequestError(
                "UNSUPPORTED_PARAMETER", "engine_lacks_parameter", engine="replay", parameter="text_input"
            )
        reject_misplaced(request, request.prompt_token_ids, self._image_token_id)
        prompt_tokens = len(request.prompt_token_ids)
        limit = output_limit(prompt_tokens, request.params, self.context_length)
        prompt = array("i", request.prompt_token_ids).tobytes()
        digests = tuple(hashlib.sha256(image).hexdigest() for image in request.images)
        recording = next((r for r in self._recordings if r.matches(prompt, digests, request.params.image_sizes)), None)
        if recording is None:
            raise RequestError("INVALID_ARGUMENT", "recording_not_found")
        usage = Usage(prompt_tokens=prompt_tokens, cached_tokens=min(recording.cached_tokens, prompt_tokens))
        playback = _Playback(request, sink, recording, limit, usage)
        with self._changed:
            if self._failed:
                raise self._failed
            if len(self._running) < self.slots:
                self._start(playback)
            else:
                self._waiting.push(playback)
            self._meter.work_given()
            self._changed.notify()

    def wake(self) -> None:
        """See Engine."""
        with self._changed:
            self._resume()
            self._changed.notify()

    def load(self) -> Load:
        """See Engine."""
        if self._failed:
            raise self._failed
        in_flight = len(self._running)
        return self._meter.load(in_flight=in_flight, queued=len(self._waiting), kv_cache_use=in_flight / self.slots)

    def close(self) -> None:
        """See Engine."""
        with self._changed:
            self._closing = True
            self._fail(RequestError("ENGINE_FAILED", "engine_failed", reason="it is stopping"))
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            try:
                while not self._closing:
                    self._play()
                    self._meter.stepped(has_work=bool(self._due))
                    self._changed.wait(self._pause())
            except Exception as problem:  # noqa: BLE001 - every error must end the requests
                self._fail(RequestError("ENGINE_FAILED", "engine_failed", reason=f"it must be restarted: {problem}"))

    def _play(self) -> None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + CANCELLATION_POLL_SECONDS
            self._drop_cancelled_waiting()
            self._resume()
        while self._due and self._due[0][0] <= now:
            self._advance(heapq.heappop(self._due)[2], now)

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do, or None if only a new request changes that."""
        until_due = self._due[0][0] - time.monotonic() if self._due else None
        if not self._waiting and not self._paused:
            return until_due
        return CANCELLATION_POLL_SECONDS if until_due is None else min(until_due, CANCELLATION_POLL_SECONDS)

    def _start(self, playback: _Playback) -> None:
        playback.started = time.monotonic()
        if self._step:
            playback.started += -playback.started % self._step
        playback.usage.queued_s = playback.started - playback.request.arrived
        self._running[id(playback)] = playback
        playback.prepare_group()
        self._schedule(playback)

    def _schedule(self, playback: _Playback) -> None:
        """Put a playback on the heap for its next group of tokens, its end, or a check for cancellation."""
        due, latest = playback.started + playback.due_s, time.monotonic() + CANCELLATION_POLL_SECONDS
        heapq.heappush(self._due, (min(latest, due), next(self._order), playback))

    def _advance(self, playback: _Playback, now: float) -> None:
        if playback.sink.is_cancelled():
            self._meter.cancelled()
            self._finish(playback, "cancelled")
            return
        if not playback.sink.has_capacity():
            self._paused.append(playback)
            return
        reason, tokens = self._play_due(playback, now)
        if reason is None and tokens is not None:
            self._meter.generated(len(tokens.token_ids))
            playback.first_token = playback.first_token or now
            playback.sink.emit(tokens)
            self._schedule(playback)
            return
        if tokens is not None:
            self._meter.generated(len(tokens.token_ids))
            playback.first_token = playback.first_token or now
        if reason is not None and playback.recording.stall_s:
            if tokens is not None:
                playback.sink.emit(tokens)
                tokens = None
            # The lock is released meanwhile: requests are accepted, but not played.
            self._changed.wait_for(lambda: self._closing, playback.recording.stall_s)
        if reason in ("stop", "length"):
            self._finish(playback, reason, tokens)
            return
        if tokens is not None:
            playback.sink.emit(tokens)
        if reason is None:
            self._schedule(playback)
        elif playback.recording.crash:
            raise RuntimeError("the recording says so")
        else:
            self._leave(playback)
            playback.sink.fail(_recorded_error(playback.recording.error))

    def _play_due(self, playback: _Playback, now: float) -> tuple[str | None, Tokens | None]:
        """Play every group that is due. Return the tokens, and `stop`, `length` or `failure` at the end."""
        recording, elapsed = playback.recording, now - playback.started
        if not recording.token_ids:
            return (_end(recording) if playback.due_s <= elapsed else None), None
        first, reason = playback.played, None
        while reason is None and playback.due_s <= elapsed:
            reason = self._take_group(playback, playback.group)
            if reason is None:
                playback.prepare_group()
        count = playback.played - first
        tokens = _tokens(recording, first, count, playback.request.params.logprobs) if count else None
        wanted = playback.request.params.prompt_logprobs
        if tokens is not None and not first and wanted is not None:
            tokens = replace(tokens, prompt=_prompt(playback.request.prompt_token_ids, wanted))
        if tokens is not None and first == 0:
            tokens = replace(tokens, cached_tokens=playback.usage.cached_tokens)
        return reason, tokens

    def _take_group(self, playback: _Playback, group: int) -> str | None:
        params, ids = playback.request.params, playback.recording.token_ids
        stops, least, length, played = params.stop_token_ids, params.min_tokens, len(ids), playback.played
        while played < group:
            played += 1
            if played >= least:
                if stops and ids[(played - 1) % length] in stops:
                    playback.played = played
                    return "stop"
                if played % length == 0 and not params.ignore_eos:
                    playback.played = played
                    return _end(playback.recording)
        playback.played = played
        return "length" if played >= playback.limit else None

    def _resume(self) -> None:
        if not self._paused:
            return
        paused, self._paused = self._paused, []
        now = time.monotonic()
        for playback in paused:
            if playback.sink.has_capacity() or playback.sink.is_cancelled():
                if playback.group:
                    # A paused playback continues at its pace, without catching up.
                    playback.started = max(playback.started, now - playback.due_s)
                heapq.heappush(self._due, (now, next(self._order), playback))
            else:
                self._paused.append(playback)

    def _drop_cancelled_waiting(self) -> None:
        for playback in self._waiting.remove_cancelled():
            self._meter.cancelled()
            playback.usage.queued_s = time.monotonic() - playback.request.arrived
            playback.sink.finish("cancelled", playback.usage)

    def _finish(self, playback: _Playback, reason: str, last: Tokens | None = None) -> None:
        self._leave(playback)
        now, usage = time.monotonic(), playback.usage
        usage.completion_tokens = playback.played
        if playback.first_token is not None:
            usage.first_token_s = playback.first_token - playback.request.arrived
            usage.prefill_s = usage.first_token_s - usage.queued_s
            usage.decode_s = now - playback.first_token
        playback.sink.finish(reason, usage, last)

    def _leave(self, playback: _Playback) -> None:
        self._running.pop(id(playback), None)
        while self._waiting and len(self._running) < self.slots:
            self._start(self._waiting.pop())

    def _fail(self, error: RequestError) -> None:
        self._failed = error
        jobs = list(self._running.values())
        while self._waiting:
            jobs.append(self._waiting.pop())
        self._due, self._paused = [], []
        self._running.clear()
        for playback in jobs:
            playback.sink.fail(error)


def _tokens(recording: Recording, first: int, count: int, logprobs: int | None) -> Tokens:
    length = len(recording.token_ids)
    if logprobs is None and first % length + count <= length:
        return Tokens([*recording.token_ids[first % length : first % length + count]])
    positions = [i % length for i in range(first, first + count)]
    ids = [recording.token_ids[i] for i in positions]
    if logprobs is None:
        return Tokens(ids)
    values = [recording.logprobs[i] if recording.logprobs else 0.0 for i in positions]
    if not logprobs:
        return Tokens(ids, values)
    top = recording.top_logprobs
    return Tokens(
        ids,
        values,
        [
            list(top[i][:logprobs]) if top else [(recording.token_ids[i], value)]
            for i, value in zip(positions, values, strict=True)
        ],
    )


def _prompt(token_ids: list[int], logprobs: int) -> Tokens:
    """Return the prompt's tokens, which are all certain, as recorded tokens are without recorded probabilities."""
    top = [[(token_id, 0.0)] for token_id in token_ids]
    return Tokens(token_ids, [0.0] * len(token_ids), [[], *top[1:]] if logprobs else None)


def _end(recording: Recording) -> str:
    return "failure" if recording.error or recording.crash else "stop"


def _recorded_error(text: str) -> RequestError:
    reason, _, message = text.partition(": ")
    return RequestError(reason, "recorded_error", reason=message)
