"""Runs GGUF files on a CPU with llama.cpp's C API, in continuous batches.

One thread does everything: in each step, it decodes one token of every running sequence and a part of the unread
prompts, in one call. (The server inside xllamacpp is not used: it loses token ids where a character spans several
tokens.) A slot keeps what it has read, so that the next turn of a conversation reads only its new tokens. A request
with a seed reads its whole prompt, because results depend in their last digits on how a prompt was split. Another
thread encodes images, while their sequences wait in their slots. Further threads compile structured outputs, for trial
and then for the engine, before their sequences get a slot.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import (
    ALL_PARAMETERS,
    VISION,
    Load,
    Request,
    Sink,
    StructuredOutput,
    Tokens,
    Usage,
    output_limit,
    reject_unknown_tokens,
)
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.engines.llama_compilations import Compilations
from services.inference.triton_backend.engines.llama_logprobs import note_prompt, take_prompt, with_logprobs
from services.inference.triton_backend.engines.llama_model import Entry, LlamaModel
from services.inference.triton_backend.engines.llama_prompt import IMAGE_TOKEN, LlamaPrompt, insert_images
from services.inference.triton_backend.engines.llama_sampler import NoTokenAllowedError, Sampler
from services.inference.triton_backend.engines.llama_sequence import Sequence
from services.inference.triton_backend.engines.llama_slots import Slots
from services.inference.triton_backend.engines.llama_steps import PREFILL_MOST, ImageRead, StepPlanner, TextRead
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.engines.llama_vision import PLACEHOLDER, encoded
from services.inference.triton_backend.held_calls import as_lark, with_calls
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.prompt_images import reject_misplaced
from services.inference.triton_backend.trial import Trials
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

PAUSE_SECONDS: Final = 0.02
WAITING_SWEEP_SECONDS: Final = 0.1
SLOW_STEP_SECONDS: Final = 1.0
"""Steps that take longer are counted and logged."""
_TRIAL: Final = "services.inference.triton_backend.engines.llama_trial"
_log: Final = logging.getLogger(__name__)


def create(arguments: dict[str, Any]) -> LlamaCppEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError, ValueError or RuntimeError with the reason."""
    return LlamaCppEngine(**arguments)


class LlamaCppEngine:
    """An engine with one thread that decodes all running requests in steps."""

    name = "llamacpp"

    def __init__(
        self,
        *,
        model: str,
        mmproj: str | None = None,
        context_length: int = 2048,
        slots: int = 4,
        threads: int = 1,
        max_queued: int = 1000,
    ) -> None:
        """Load the GGUF file `model`, and `mmproj`, the GGUF file of its vision projector.

        `context_length` is per request. At most `max_queued` requests wait for one of the `slots`.
        """
        api = LlamaApi()
        self.version = f"llama.cpp of xllamacpp {api.version}"
        self.structured_output_library = "llguidance"
        self.structured_output_library_version = f"of {self.version}"
        self.context_length = context_length
        self.slots = slots
        self._api = api
        # It prepares the vocabulary, which takes seconds, while the weights are loaded.
        trials = Trials(_TRIAL, {"model": str(Path(model).absolute())})
        with contextlib.ExitStack() as on_error:
            on_error.callback(trials.close)
            self._model = LlamaModel(
                api,
                Path(model),
                context_length=context_length,
                slots=slots,
                threads=threads,
                most_entries=slots + PREFILL_MOST,
            )
            self._placeholder = self._model.token(PLACEHOLDER)
            self._vision = self._model.open_vision(Path(mmproj), threads=threads) if mmproj else None
            if self._vision is not None and self._placeholder is None:
                raise ValueError(f"{model} has no token {PLACEHOLDER}, which stands for images; leave mmproj out")
            on_error.pop_all()
        self.supported_parameters = ALL_PARAMETERS | (VISION if self._vision else frozenset())
        self._image_threads = ThreadPoolExecutor(1, thread_name_prefix="llamacpp-vision")
        self._candidates = Candidates(api, self._model.vocabulary)
        self._structured_outputs = StructuredOutputs(api, self._model.vocab, self._model.vocabulary)
        self._sampler = partial(
            Sampler,
            api,
            structured_outputs=self._structured_outputs,
            vocabulary=self._model.vocabulary,
            context_length=context_length,
        )
        # The first structured output prepares the vocabulary, which takes a part of a second.
        self._api.lib.llama_sampler_free(self._structured_outputs.copy_of(StructuredOutput("json_object", "")))
        trials.wait_ready()
        self._slots = Slots(self._model, slots)
        self._running: list[Sequence] = []
        self._waiting: WaitingQueue[Sequence] = WaitingQueue(limit=max_queued)
        self._meter = LoadMeter()
        self._planner = StepPlanner()
        self._next_sweep = 0.0
        self._failed: RequestError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._compilations = Compilations(trials, changed=self._changed, limit=max_queued, queue=self._queue)
        self._thread = threading.Thread(target=self._run, name="llamacpp", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        request = with_calls(request, as_lark)
        prompt = request.prompt_token_ids
        if request.text_input is not None:
            prompt = self._model.tokenize(request.text_input)
        placeholder = self._placeholder if self._vision else None
        reject_misplaced(request, prompt, placeholder)
        if request.images and prompt[-1] == placeholder:
            raise RequestError("INVALID_ARGUMENT", "image_at_end_of_prompt")
        limit = output_limit(len(prompt), request.params, self.context_length)
        reject_unknown_tokens("prompt_token_ids", prompt, self._model.vocabulary)
        sampler = self._sampler(request.params, prompt)
        usage = Usage(prompt_tokens=len(prompt))
        # At least one token must be read, because its logits choose the first new token. Images are always read again.
        reusable = prompt.index(placeholder) if placeholder is not None and request.images else len(prompt) - 1
        is_ready = not request.images
        sequence = Sequence(request, sink, sampler, limit, usage, LlamaPrompt(prompt), reusable, is_ready)
        try:
            with self._changed:
                if self._failed:
                    raise self._failed
                if not sampler.lacks_structured_output:
                    self._queue(sequence)
                else:
                    self._compilations.add(sequence)
                self._changed.notify()
        except RequestError:
            sampler.close()
            raise
        if sampler.lacks_structured_output:
            self._compilations.start(sequence)

    def _queue(self, sequence: Sequence) -> None:
        """Queue a sequence for a slot, with the lock held. Raises RequestError."""
        self._waiting.push(sequence)
        self._meter.work_given()

    def wake(self) -> None:
        """See Engine."""
        with self._changed:
            self._changed.notify()

    def load(self) -> Load:
        """See Engine."""
        if self._failed:
            raise self._failed
        running = list(self._running)
        used = sum(len(sequence.slot.tokens) for sequence in running if sequence.slot)
        return self._meter.load(
            in_flight=len(running),
            queued=len(self._waiting) + len(self._compilations),
            kv_cache_use=used / (self.slots * self.context_length),
        )

    def close(self) -> None:
        """See Engine."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._compilations.close()
        self._image_threads.shutdown(cancel_futures=True)
        if self._vision is not None:
            self._vision.close()
        self._structured_outputs.close()
        self._model.close()

    def _run(self) -> None:
        error = RequestError("ENGINE_FAILED", "engine_failed", reason="it is stopping")
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._drop_failed()
                self._admit()
                began = time.monotonic()
                self._step()
                self._note_step(time.monotonic() - began)
        except Exception as problem:  # noqa: BLE001 - every error must end the requests
            error = RequestError("ENGINE_FAILED", "engine_failed", reason=f"it must be restarted: {problem}")
        self._fail_all(error)

    def _wait_for_work(self) -> bool:
        """Wait while there is nothing to do. Return False when the engine is to stop."""
        with self._changed:
            if not self._closing and not self._running and not self._waiting:
                self._meter.stepped(has_work=False)
                self._changed.wait(WAITING_SWEEP_SECONDS if self._compilations else None)
            elif self._running and not any(sequence.can_go_on() for sequence in self._running):
                self._meter.stepped(has_work=False)
                self._changed.wait(PAUSE_SECONDS)
            self._meter.stepped()
            return not self._closing

    def _note_step(self, seconds: float) -> None:
        if seconds > SLOW_STEP_SECONDS:
            self._meter.slow_step()
            structured = sum(sequence.request.params.structured_output is not None for sequence in self._running)
            _log.warning(
                "a step of the engine took %.1f s, with %d requests running, %d of them with structured output",
                *(seconds, len(self._running), structured),
            )

    def _drop_cancelled(self) -> None:
        now, cancelled = time.monotonic(), []
        if now >= self._next_sweep:
            self._next_sweep = now + WAITING_SWEEP_SECONDS
            with self._changed:
                cancelled = self._waiting.remove_cancelled()
            self._drop_expired()
        cancelled += [sequence for sequence in self._running if sequence.sink.is_cancelled()]
        for sequence in cancelled:
            self._meter.cancelled()
            self._finish(sequence, "cancelled")

    def _drop_expired(self) -> None:
        """End requests that wait for their structured output and are cancelled, or have waited for too long."""
        for sequence, error in self._compilations.remove_expired():
            if error is None:
                self._meter.cancelled()
                self._finish(sequence, "cancelled")
            else:
                sequence.sampler.close()
                sequence.sink.fail(error)

    def _drop_failed(self) -> None:
        for sequence in [sequence for sequence in self._running if sequence.problem]:
            assert sequence.problem is not None  # noqa: S101 - checked in the line before
            self._leave(sequence)
            sequence.sink.fail(sequence.problem)

    def _admit(self) -> None:
        while self._slots.has_free:
            with self._changed:
                if not self._waiting:
                    return
                sequence = self._waiting.pop()
            sequence.started = time.monotonic()
            sequence.usage.queued_s = sequence.started - sequence.request.arrived
            self._slots.assign(sequence)
            self._running.append(sequence)
            if not sequence.is_ready:
                with contextlib.suppress(RuntimeError):  # the engine is stopping
                    self._image_threads.submit(self._prepare_images, sequence)

    def _is_unwanted(self, sequence: Sequence) -> bool:
        return self._closing or sequence.problem is not None or sequence.sink.is_cancelled()

    def _prepare_images(self, sequence: Sequence) -> None:
        """Decode and encode a sequence's images, and insert them into its prompt."""
        try:
            prompt = self._prompt_with_images(sequence)
            sequence.limit = output_limit(len(prompt), sequence.request.params, self.context_length)
            sequence.prompt, sequence.usage.prompt_tokens = prompt, len(prompt)
        except RequestError as error:
            sequence.problem = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the request must hear of it
            sequence.problem = RequestError("ENGINE_FAILED", "engine_failed", reason=f"images: {error}")
        sequence.is_ready = True
        self.wake()

    def _prompt_with_images(self, sequence: Sequence) -> LlamaPrompt:
        assert self._vision is not None  # noqa: S101 - images are rejected without it
        assert self._placeholder is not None  # noqa: S101 - as above
        images = encoded(self._vision, sequence.request, is_wanted=lambda: not self._is_unwanted(sequence))
        return insert_images(sequence.prompt.tokens, images, placeholder=self._placeholder)

    def _step(self) -> None:
        entries: list[Entry] = []
        choosing: list[tuple[Sequence, int]] = []
        scored: list[tuple[TextRead, int, int]] = []
        step = self._planner.plan(self._running)
        # llama.cpp computes entries together only if they are in the order of the slots, and others in separate passes.
        for read in sorted(step.texts, key=lambda read: read.slot.number):
            if read.scores_prompt:
                scored.append((read, len(read.slot.tokens), len(entries)))
            entries += read.entries()
            if len(read.slot.tokens) >= len(read.sequence.prompt):
                choosing.append((read.sequence, len(entries) - 1))
        began = time.monotonic()
        if entries:
            self._model.decode(entries)
        seconds = time.monotonic() - began
        for read, first, index in scored:
            note_prompt(read.sequence, first, map(self._model.logits, range(index, index + len(read.token_ids))))
        for sequence, index in choosing:
            self._choose(sequence, self._model.logits(index))
        began = time.monotonic()
        for image in step.images:
            self._read_image(image)
        self._planner.note(step, seconds + time.monotonic() - began)
        if step.prompt_tokens:
            # Those that come next wait for this prompt.
            for sequence in self._running:
                if sequence.next_token is None:
                    sequence.sink.note_progress()

    def _read_image(self, read: ImageRead) -> None:
        slot, placed = read.slot, read.placed
        first = len(slot.tokens) - placed.start
        position = read.sequence.prompt.position(placed.start)
        self._model.decode_image(placed.image, first, first + read.count, position=position, sequence=slot.number)
        slot.tokens += [IMAGE_TOKEN] * read.count

    def _choose(self, sequence: Sequence, logits: npt.NDArray[np.float32]) -> None:
        params = sequence.request.params
        too_early = sequence.generated + 1 < params.min_tokens
        forbidden = self._model.end_ids | params.stop_token_ids if too_early else ()
        try:
            token_id = sequence.sampler.sample(self._candidates, logits, forbidden)
        except NoTokenAllowedError as error:
            if sequence.generated:
                # The text matches the structured output, but is not complete.
                self._finish(sequence, "length")
            else:
                self._leave(sequence)
                sequence.sink.fail(error)
            return
        except RequestError as error:
            self._leave(sequence)
            sequence.sink.fail(error)
            return
        sequence.next_token = token_id
        sequence.generated += 1
        self._meter.generated(1)
        tokens = take_prompt(sequence, with_logprobs(token_id, logits, params.logprobs))
        if sequence.first_token is None:
            sequence.first_token = time.monotonic()
            tokens = replace(tokens, cached_tokens=sequence.usage.cached_tokens)
        if token_id in params.stop_token_ids or (token_id in self._model.end_ids and not params.ignore_eos):
            self._finish(sequence, "stop", tokens)
        elif sequence.generated >= sequence.limit:
            self._finish(sequence, "length", tokens)
        else:
            sequence.sink.emit(tokens)

    def _finish(self, sequence: Sequence, reason: str, last: Tokens | None = None) -> None:
        self._leave(sequence)
        now, usage = time.monotonic(), sequence.usage
        usage.completion_tokens = sequence.generated
        if not sequence.started:
            usage.queued_s = now - sequence.request.arrived
        if sequence.first_token is not None:
            usage.prefill_s = sequence.first_token - sequence.started
            usage.decode_s = now - sequence.first_token
            usage.first_token_s = sequence.first_token - sequence.request.arrived
        sequence.sink.finish(reason, usage, last)

    def _leave(self, sequence: Sequence) -> None:
        sequence.sampler.close()
        if sequence.slot is not None:
            self._slots.release(sequence.slot)
            self._running.remove(sequence)

    def _fail_all(self, error: RequestError) -> None:
        with self._changed:
            self._failed = error
            left, self._running = [*self._running, *self._compilations.clear()], []
            while self._waiting:
                left.append(self._waiting.pop())
        for sequence in left:
            sequence.sampler.close()
            sequence.sink.fail(error)
