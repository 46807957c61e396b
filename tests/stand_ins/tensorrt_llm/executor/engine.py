"""A thread that generates one token per step for each running request, as the real executor does."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from tensorrt_llm.executor.blocks import Blocks
from tensorrt_llm.executor.result import Logprob, RequestOutput, Response
from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.sampling_params import SamplingParams
from tensorrt_llm.version import since

CANDIDATES = 24
STEP = 0.8
"""The difference between the logits of one candidate and the next."""


@dataclass(frozen=True, slots=True)
class Script:
    """A scripted response, and its deviations from correct behaviour."""

    token_ids: list[int]
    request_error: str = ""
    """The message of an error that ends the request after its tokens; the engine continues."""
    fatal: str = ""
    """The message of an error that ends the request after its tokens, and the engine."""
    cancelled_error: bool = False
    """The request raises CancelledError after its tokens."""
    final: str = ""
    """The finish reason after the tokens: TIMED_OUT, CANCELLED, NO_OUTPUTS, or NONE for no reason."""
    stalls: bool = False
    """The request neither ends nor generates more after its tokens."""
    hides_eos: bool = False
    """The ids lack the end-of-sequence token."""
    hides_stop: bool = False
    """The engine ignores include_stop_str_in_output."""
    trims: int = 0
    """The number of ids that the last response removes again."""
    top_without_chosen: bool = False
    """The log probabilities contain the chosen token only if it is one of the most probable."""
    strange_logprobs: bool = False
    """The log probabilities have an unknown format."""
    silent_abort: bool = False
    """No response follows an abort."""
    result_error: str = ""
    """The name of an exception that reading the response raises after its tokens; the engine goes on generating."""
    fails_all: str = ""
    """The message of an error that ends all requests that run after the tokens of this one; the engine continues."""
    breaks: str = ""
    """The same, and every later request ends with this error too, as after an error of the device."""
    dies: str = ""
    """The same as `fails_all`, and the thread ends: later requests are accepted, and never answered."""
    vanishes: bool = False
    """The thread ends after the tokens without any response, as when the process of a rank dies."""


@dataclass(slots=True, eq=False)
class Running:
    """One choice of a request."""

    result: RequestOutput
    params: SamplingParams
    script: Script
    limit: int
    prompt_tokens: int
    has_positions: bool
    """Whether the request has the positions in three dimensions that models with vision use."""
    index: int = 0
    generated: list[int] = field(default_factory=list)
    step: int = 0
    pending: list[int] = field(default_factory=list)
    pending_logprobs: list[Any] = field(default_factory=list)
    randomness: random.Random = field(default_factory=random.Random)
    aborted: bool = False


class Engine:
    def __init__(
        self,
        *,
        slots: int,
        step_seconds: float,
        stream_interval: int,
        honours: frozenset[str],
        flat_logprobs: bool,
        blocks: Blocks,
    ) -> None:
        self.steps = 0
        self.lost = False
        """Whether the thread has ended by itself, which nothing else shows."""
        self.blocks = blocks
        self._broken = ""
        self._slots, self._step_seconds, self._interval = slots, step_seconds, stream_interval
        self._honours, self._flat = honours, flat_logprobs
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []
        self._changed = threading.Condition()
        self.dead = False
        self._thread = threading.Thread(target=self._run, name="stand-in executor", daemon=True)
        self._thread.start()

    def add(self, running: Running) -> None:
        if self.dead:
            raise RuntimeError("LLM is shutting down")
        if self._flat and running.params.temperature is not None and running.params.temperature <= 0:
            running.result.put(Response(error=RequestError("temperature must be greater than 0")))
            return
        if running.script.hides_stop:
            running.params.include_stop_str_in_output = False
        if running.params.seed is not None and "seed" in self._honours:
            running.randomness = random.Random(running.params.seed)
        running.result.on_abort(lambda: self._abort(running))
        with self._changed:
            self._waiting.append(running)
            self._changed.notify()

    @property
    def is_shutdown(self) -> bool:
        return self.dead or self.lost

    @property
    def active(self) -> int:
        return len(self._running) + len(self._waiting)

    def stop(self) -> None:
        with self._changed:
            self.dead = True
            self._changed.notify()
        self._thread.join()

    def _abort(self, running: Running) -> None:
        running.aborted = True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self.dead and not self._running and not self._waiting:
                    self._changed.wait()
                if self.dead:
                    return
                while self._waiting and len(self._running) < self._slots:
                    self._running.append(self._waiting.popleft())
            time.sleep(self._step_seconds)
            self.steps += 1
            # Requests whose prompts are read come first.
            batch = sorted(self._running, key=lambda running: bool(running.generated))
            problem = self._problem_of(batch)
            if problem or self._broken:
                self._fail_all(problem or self._broken)
                if problem:
                    self.lost = True
                    return
            for running in batch:
                self._advance(running)
                if self.lost:
                    return
            self.blocks.note_step(self.steps, self._running, len(self._waiting))

    def _problem_of(self, batch: list[Running]) -> str:
        """Return the error that a mixture of requests causes in older versions, or an empty text."""
        biased = [running.params.embedding_bias is not None for running in batch]
        if any(biased) and not biased[-1] and not self._flat and not since("1.3.0rc26"):
            return "Sampling failed"
        if len({running.has_positions for running in batch}) > 1 and not since("1.3.0rc24"):
            return "The size of tensor a must match the size of tensor b"
        return ""

    def _fail_all(self, problem: str) -> None:
        for running in self._running:
            running.result.put(Response(error=RequestError(problem)))
        self._running.clear()

    def _advance(self, running: Running) -> None:
        script = running.script
        if running not in self._running:
            return
        if running.aborted:
            self._running.remove(running)
            if not script.silent_abort:
                self._put_last(running, Response(reason="CANCELLED"))
            return
        if len(running.generated) >= len(script.token_ids):
            if script.request_error or script.fatal or script.final or script.cancelled_error:
                self._misbehave(running)
                return
            if problem := script.fails_all or script.breaks or script.dies:
                self._fail_all(problem)
                self._broken, self.lost = script.breaks, bool(script.dies)
                return
            if script.vanishes:
                self.lost = True
                return
            if script.result_error:
                running.result.put(Response(reading_raises=script.result_error))
            if script.stalls:
                return
        token_id, logits = self._choose(running)
        running.generated.append(token_id)
        hidden = script.hides_eos and token_id == running.params.end_id and not running.params.ignore_eos
        if not hidden:
            running.pending.append(token_id)
            if running.params.returns_logprobs:
                running.pending_logprobs.append(self._logprobs(running, token_id, logits))
        reason = self._reason(running, token_id)
        if reason is not None or len(running.generated) % self._interval == 0:
            self._respond(running, reason)

    def _misbehave(self, running: Running) -> None:
        script = running.script
        self._running.remove(running)
        if script.fatal:
            self.dead = True
            for other in [running, *self._running]:
                other.result.put(Response(error=RuntimeError(script.fatal)))
        elif script.cancelled_error:
            running.result.put(Response(error=asyncio.CancelledError()))
        elif script.request_error:
            running.result.put(Response(error=RequestError(script.request_error)))
        else:
            self._put_last(running, Response(reason="" if script.final == "NONE" else script.final))

    def _respond(self, running: Running, reason: str | None) -> None:
        trim = running.script.trims if reason is not None else 0
        response = Response(running.pending, running.pending_logprobs, reason, trim, index=running.index)
        running.pending, running.pending_logprobs = [], []
        if reason is None:
            running.result.put(response)
            return
        self._running.remove(running)
        self._put_last(running, response)

    def _put_last(self, running: Running, response: Response) -> None:
        running.result.choices_left -= 1
        # Only the response that ends the whole request has a reason, and only for its own choice.
        is_last = not running.result.choices_left
        running.result.put(replace(response, index=running.index, reason=response.reason if is_last else None))

    def _reason(self, running: Running, token_id: int) -> str | None:
        params = running.params
        if token_id == params.end_id and not params.ignore_eos:
            return "END_ID"
        # Unlike the end-of-sequence token, stop words do not wait for min_tokens.
        if any(running.generated[-len(ids) :] == ids for _, ids in params.stop_words()):
            return "STOP_WORDS"
        return "LENGTH" if len(running.generated) >= running.limit else None

    def _choose(self, running: Running) -> tuple[int, dict[int, float]]:
        params = running.params
        logits = self._logits(running)
        raw = dict(logits)
        self._penalise(running, logits)
        if params.embedding_bias is not None:
            for token_id in params.embedding_bias.nonzero():
                logits[token_id] = logits.get(token_id, -20.0) + params.embedding_bias[token_id]
        best = max(logits, key=logits.__getitem__)
        if params.is_greedy:
            return best, raw
        kept = sorted(logits, key=lambda i: -logits[i])[: params.top_k or None]
        if params.min_p and "min_p" in self._honours:
            kept = [i for i in kept if math.exp(logits[i] - logits[best]) >= params.min_p]
        weights = [math.exp((logits[i] - logits[best]) / (params.temperature or 1.0)) for i in kept]
        return running.randomness.choices(kept, weights)[0], raw

    def _logits(self, running: Running) -> dict[int, float]:
        """Return the log probabilities of the next token: of the scripted one and its neighbours."""
        params, ids = running.params, running.script.token_ids
        # Before rc10, the tokens of the prompt count.
        counted = 0 if since("1.3.0rc10") or self._flat else running.prompt_tokens
        too_early = counted + len(running.generated) + 1 < (params.min_tokens or 0)
        while too_early and ids[running.step % len(ids)] == params.end_id:
            running.step += 1
        token_id = ids[running.step % len(ids)]
        running.step += 1
        neighbours = [i for i in range(token_id, token_id + CANDIDATES + 1) if i == token_id or i != params.end_id]
        norm = math.log(sum(math.exp(-STEP * n) for n in range(CANDIDATES)))
        return {i: -STEP * n - norm for n, i in enumerate(neighbours[:CANDIDATES])}

    def _penalise(self, running: Running, logits: dict[int, float]) -> None:
        params = running.params
        for token_id in set(running.generated) & logits.keys():
            if params.presence_penalty and "presence_penalty" in self._honours:
                logits[token_id] -= params.presence_penalty
            if params.frequency_penalty and "frequency_penalty" in self._honours:
                logits[token_id] -= params.frequency_penalty * running.generated.count(token_id)
            if params.repetition_penalty and "repetition_penalty" in self._honours:
                logits[token_id] -= 5 * (params.repetition_penalty - 1)

    def _logprobs(self, running: Running, token_id: int, logits: dict[int, float]) -> Any:
        if running.script.strange_logprobs:
            return "?"
        if self._flat:
            return logits.get(token_id, -20.0)
        order = sorted(logits, key=lambda i: -logits[i])
        top = order[: running.params.logprobs]
        if token_id not in top and not running.script.top_without_chosen:
            top.append(token_id)
        return {i: Logprob(logits.get(i, -20.0), order.index(i) + 1 if i in order else None) for i in reversed(top)}
