"""Runs GGUF files on a CPU, continuously batched over llama.cpp's C API.

One thread does everything: in each step it decodes one token of every running sequence and a piece of the prompts that
are still to be read, in one call. (The server inside xllamacpp is not used: it loses token ids where a character spans
several tokens.) A slot keeps what it has read, so that a conversation's next turn reads only what is new; a request
that asks for repeatability, by a seed or temperature 0, reads everything anew, because results depend in their last
digits on how a prompt was split. Images are looked at by another thread, while the sequence that they belong to waits
in its slot. Guides are compiled for trial and then made by further threads, before their sequences ask for a slot.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
from services.inference.triton_backend.engines.llama_model import Entry, LlamaModel
from services.inference.triton_backend.engines.llama_prompt import IMAGE_TOKEN, LlamaPrompt, PlacedImage, insert_images
from services.inference.triton_backend.engines.llama_sampler import NoTokenAllowed, Sampler
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot, common_prefix
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.engines.llama_vision import PLACEHOLDER
from services.inference.triton_backend.fair_work import FairWork
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.prompt_images import decode, reject_misplaced
from services.inference.triton_backend.trial import Trials, busy
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

PREFILL_BESIDE_OTHERS: Final = 32
"""Most prompt tokens in a step while other requests run: they must not notice."""
PREFILL_ALONE: Final = 512
PREFILL_LEAST: Final = 8
STEP_SECONDS: Final = 0.08
"""What a step that reads prompts should take at most, so that tokens come and cancellations are seen meanwhile."""
PAUSE_SECONDS: Final = 0.02
WAITING_SWEEP_SECONDS: Final = 0.1
STRUCTURED_OUTPUT_SECONDS: Final = 9.0
"""How long a request waits for its guide: for its turn, the trial and the making."""
STRUCTURED_OUTPUTS_AT_ONCE: Final = 2
SLOW_STEP_SECONDS: Final = 1.0
"""A step that takes longer is counted and logged."""
_TRIAL: Final = "services.inference.triton_backend.engines.llama_trial"
_log: Final = logging.getLogger(__name__)


def create(arguments: dict[str, Any]) -> LlamaCppEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError, ValueError or RuntimeError with the reason."""
    return LlamaCppEngine(**arguments)


_Text = tuple[Sequence, Slot, list[int]]
_Image = tuple[Sequence, Slot, PlacedImage, int]
"""With how many of the image's tokens."""


class LlamaCppEngine:
    """One thread that steps over all running requests."""

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
        self.guide_library = "llguidance"
        self.guide_library_version = f"of {self.version}"
        self.context_length = context_length
        self.slots = slots
        self._api = api
        self._model = LlamaModel(
            api,
            Path(model),
            context_length=context_length,
            slots=slots,
            threads=threads,
            most_entries=slots + PREFILL_ALONE,
        )
        self._placeholder = self._model.token(PLACEHOLDER)
        self._vision = self._model.open_vision(Path(mmproj), threads=threads) if mmproj else None
        if self._vision is not None and self._placeholder is None:
            raise ValueError(f"{model} has no token {PLACEHOLDER}, which stands for images; leave mmproj out")
        self.supported_parameters = ALL_PARAMETERS | (VISION if self._vision else frozenset())
        self._trials = Trials(_TRIAL, {"model": str(Path(model).absolute())})
        self._compile_threads = FairWork("llamacpp-guides", threads=STRUCTURED_OUTPUTS_AT_ONCE)
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
        # The first guide prepares the vocabulary, which takes part of a second.
        self._api.lib.llama_sampler_free(self._structured_outputs.copy_of(StructuredOutput("json_object", "")))
        self._trials.wait_ready()
        self._free = [Slot(i) for i in range(slots)]
        self._running: list[Sequence] = []
        self._on_trial: list[Sequence] = []
        """Those whose guides are being made. They have no slot yet."""
        self._max_queued = max_queued
        self._waiting: WaitingQueue[Sequence] = WaitingQueue(limit=max_queued)
        self._meter = LoadMeter()
        self._prefill_budget = PREFILL_BESIDE_OTHERS
        self._next_sweep = 0.0
        self._failed: RequestError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="llamacpp", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        prompt = request.prompt_token_ids
        if request.text_input is not None:
            prompt = self._model.tokenize(request.text_input)
        placeholder = self._placeholder if self._vision else None
        reject_misplaced(request, prompt, placeholder)
        if request.images and prompt[-1] == placeholder:
            raise RequestError("INVALID_ARGUMENT", "the prompt ends with an image; it must go on behind it")
        limit = output_limit(len(prompt), request.params, self.context_length)
        reject_unknown_tokens("prompt_token_ids", prompt, self._model.vocabulary)
        sampler = self._sampler(request.params, prompt)
        usage = Usage(prompt_tokens=len(prompt))
        # At least one token must be read again: its logits choose the first new one. Images are always read again.
        reusable = prompt.index(placeholder) if placeholder is not None and request.images else len(prompt) - 1
        is_ready = not request.images
        sequence = Sequence(request, sink, sampler, limit, usage, LlamaPrompt(prompt), reusable, is_ready)
        try:
            with self._changed:
                if self._failed:
                    raise self._failed
                if not sampler.lacks_structured_output:
                    self._waiting.push(sequence)
                    self._meter.work_given()
                else:
                    self._put_on_trial(sequence)
                self._changed.notify()
        except RequestError:
            sampler.close()
            raise
        if sampler.lacks_structured_output:
            self._compile_threads.submit(request.params.cache_salt, partial(self._make_structured_output, sequence))

    def _put_on_trial(self, sequence: Sequence) -> None:
        if len(self._on_trial) >= self._max_queued:
            raise _too_many_structured_outputs()
        self._on_trial.append(sequence)

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
            queued=len(self._waiting) + len(self._on_trial),
            kv_cache_use=used / (self.slots * self.context_length),
        )

    def close(self) -> None:
        """See Engine."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._trials.close()
        self._compile_threads.close()
        self._image_threads.shutdown(cancel_futures=True)
        if self._vision is not None:
            self._vision.close()
        self._structured_outputs.close()
        self._model.close()

    def _run(self) -> None:
        error = RequestError("ENGINE_FAILED", "the engine is stopping")
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._drop_failed()
                self._admit()
                began = time.monotonic()
                self._step()
                self._note_step(time.monotonic() - began)
        except Exception as problem:  # noqa: BLE001 - whatever it was, requests must hear of it
            error = RequestError("ENGINE_FAILED", f"the engine has failed and must be restarted: {problem}")
        self._fail_all(error)

    def _wait_for_work(self) -> bool:
        """Sleep while there is nothing to do. False when the engine is to stop."""
        with self._changed:
            if not self._closing and not self._running and not self._waiting:
                self._meter.stepped(has_work=False)
                self._changed.wait(WAITING_SWEEP_SECONDS if self._on_trial else None)
            elif self._running and not any(sequence.can_go_on() for sequence in self._running):
                self._meter.stepped(has_work=False)
                self._changed.wait(PAUSE_SECONDS)
            self._meter.stepped()
            return not self._closing

    def _note_step(self, seconds: float) -> None:
        if seconds > SLOW_STEP_SECONDS:
            self._meter.slow_step()
            guided = sum(sequence.request.params.structured_output is not None for sequence in self._running)
            _log.warning(
                "a step of the engine took %.1f s, with %d requests running, %d of them guided",
                *(seconds, len(self._running), guided),
            )

    def _drop_cancelled(self) -> None:
        now, gone = time.monotonic(), []
        if now >= self._next_sweep:
            self._next_sweep = now + WAITING_SWEEP_SECONDS
            with self._changed:
                gone = self._waiting.remove_cancelled()
            self._drop_on_trial()
        gone += [sequence for sequence in self._running if sequence.sink.is_cancelled()]
        for sequence in gone:
            self._meter.cancelled()
            self._finish(sequence, "cancelled")

    def _drop_on_trial(self) -> None:
        """End requests whose guides are not made yet, and which are cancelled or have waited for too long."""
        latest = time.monotonic() - STRUCTURED_OUTPUT_SECONDS
        for sequence in list(self._on_trial):
            cancelled = sequence.sink.is_cancelled()
            if not cancelled and sequence.request.arrived >= latest:
                continue
            with self._changed:
                if sequence not in self._on_trial:
                    continue
                self._on_trial.remove(sequence)
                sequence.is_over = True
            if cancelled:
                self._meter.cancelled()
                self._finish(sequence, "cancelled")
            else:
                sequence.sampler.close()
                sequence.sink.fail(_structured_output_timeout(sequence))

    def _drop_failed(self) -> None:
        for sequence in [sequence for sequence in self._running if sequence.problem]:
            assert sequence.problem is not None  # noqa: S101 - as was just asked
            self._leave(sequence)
            sequence.sink.fail(sequence.problem)

    def _admit(self) -> None:
        while self._free:
            with self._changed:
                if not self._waiting:
                    return
                sequence = self._waiting.pop()
            sequence.started = time.monotonic()
            sequence.usage.queued_s = sequence.started - sequence.request.arrived
            self._give_slot(sequence)
            self._running.append(sequence)
            if not sequence.is_ready:
                with contextlib.suppress(RuntimeError):  # the engine is stopping
                    self._image_threads.submit(self._prepare_images, sequence)

    def _make_structured_output(self, sequence: Sequence) -> None:
        """Make a sequence's guide, and queue the sequence then. Runs in a thread of its own."""
        problem = None
        try:
            if not (sequence.is_over or sequence.sink.is_cancelled()):
                sequence.trial_began = time.monotonic()
                sequence.sampler.make_structured_output(self._trials)
        except RequestError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the request must hear of it
            problem = RequestError("ENGINE_FAILED", f"a guide could not be made: {error}")
        with self._changed:
            if sequence not in self._on_trial:
                return
            if problem is None and sequence.sampler.lacks_structured_output:
                # It is cancelled; the engine's thread ends it.
                return
            self._on_trial.remove(sequence)
            if problem is None:
                try:
                    self._waiting.push(sequence)
                    self._meter.work_given()
                except RequestError as error:
                    problem = error
            self._changed.notify()
        if problem is not None:
            sequence.sampler.close()
            sequence.sink.fail(problem)

    def _is_unwanted(self, sequence: Sequence) -> bool:
        return self._closing or sequence.problem is not None or sequence.sink.is_cancelled()

    def _prepare_images(self, sequence: Sequence) -> None:
        """Look at a sequence's images, and make them a part of its prompt."""
        try:
            prompt = self._encoded_images(sequence)
            sequence.limit = output_limit(len(prompt), sequence.request.params, self.context_length)
            sequence.prompt, sequence.usage.prompt_tokens = prompt, len(prompt)
        except RequestError as error:
            sequence.problem = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the request must hear of it
            sequence.problem = RequestError("ENGINE_FAILED", f"an image could not be looked at: {error}")
        sequence.is_ready = True
        self.wake()

    def _encoded_images(self, sequence: Sequence) -> LlamaPrompt:
        assert self._vision is not None  # noqa: S101 - or images were refused
        assert self._placeholder is not None  # noqa: S101 - as well
        seen = []
        for image in decode(sequence.request, is_wanted=lambda: not self._is_unwanted(sequence)):
            if self._is_unwanted(sequence):
                raise RequestError("ENGINE_FAILED", "nobody waits for the image any more")
            seen.append(self._vision.see(image.width, image.height, image.tobytes()))
        return insert_images(sequence.prompt.tokens, seen, placeholder=self._placeholder)

    def _give_slot(self, sequence: Sequence) -> None:
        """Give it the free slot that has read most of its prompt already, or the one unused for longest."""
        params, prompt = sequence.request.params, sequence.prompt.tokens
        reusable = dict.fromkeys(range(self.slots), 0)
        if params.seed is None and params.temperature > 0:
            for slot in self._free:
                if slot.salt == params.cache_salt:
                    reusable[slot.number] = common_prefix(slot.tokens, prompt)
        slot = max(self._free, key=lambda s: (reusable[s.number], -s.used))
        self._free.remove(slot)
        kept = self._model.keep(slot.number, min(reusable[slot.number], sequence.reusable))
        slot.tokens, slot.salt = prompt[:kept], params.cache_salt
        sequence.slot, sequence.usage.cached_tokens = slot, kept

    def _step(self) -> None:
        entries: list[Entry] = []
        choosing: list[tuple[Sequence, int]] = []
        texts, images, prefilled = self._plan()
        # llama.cpp computes together only what comes in the order of the slots, and the rest in passes of their own.
        for sequence, slot, piece in sorted(texts, key=lambda one: one[1].number):
            self._add(entries, sequence, slot, piece)
            if len(slot.tokens) >= len(sequence.prompt):
                choosing.append((sequence, len(entries) - 1))
        began = time.monotonic()
        if entries:
            self._model.decode(entries)
        seconds = time.monotonic() - began
        for sequence, index in choosing:
            self._choose(sequence, self._model.logits(index))
        began = time.monotonic()
        for sequence, slot, placed, count in images:
            self._read_image(sequence, slot, placed, count)
        if prefilled:
            self._adapt_prefill(prefilled, seconds + time.monotonic() - began)

    def _plan(self) -> tuple[list[_Text], list[_Image], int]:
        """What each sequence reads in this step, and how many tokens of prompts that is, the oldest request's first."""
        texts: list[_Text] = []
        images: list[_Image] = []
        budget = min(self._prefill_budget, PREFILL_BESIDE_OTHERS if len(self._running) > 1 else PREFILL_ALONE)
        prefilled = 0
        for sequence in self._running:
            slot = sequence.slot
            if slot is None or not sequence.can_go_on():
                continue
            done = len(slot.tokens)
            if sequence.next_token is not None:
                texts.append((sequence, slot, [sequence.next_token]))
            elif prefilled >= budget:
                continue
            elif placed := sequence.prompt.image_at(done):
                count = min(placed.end - done, budget - prefilled)
                prefilled += count
                images.append((sequence, slot, placed, count))
            else:
                piece = sequence.prompt.text_at(done, budget - prefilled)
                prefilled += len(piece)
                texts.append((sequence, slot, piece))
        return texts, images, prefilled

    def _read_image(self, sequence: Sequence, slot: Slot, placed: PlacedImage, count: int) -> None:
        first = len(slot.tokens) - placed.start
        position = sequence.prompt.position(placed.start)
        self._model.decode_image(placed.image, first, first + count, position=position, sequence=slot.number)
        slot.tokens += [IMAGE_TOKEN] * count

    def _adapt_prefill(self, tokens: int, seconds: float) -> None:
        """A step with `tokens` tokens of prompts took `seconds`."""
        if seconds > STEP_SECONDS:
            self._prefill_budget = max(PREFILL_LEAST, int(tokens * STEP_SECONDS / seconds))
        elif tokens == self._prefill_budget:
            self._prefill_budget = min(PREFILL_ALONE, tokens * 5 // 4)

    def _add(self, entries: list[Entry], sequence: Sequence, slot: Slot, token_ids: list[int]) -> None:
        """Have `token_ids` read next; logits are wanted after the last one unless prompt is left."""
        first = len(slot.tokens)
        slot.tokens.extend(token_ids)
        last = len(slot.tokens) - 1
        wants_logits = last + 1 >= len(sequence.prompt)
        for index, token_id in enumerate(token_ids, first):
            position = sequence.prompt.position(index)
            entries.append(Entry(token_id, position, slot.number, wants_logits and index == last))

    def _choose(self, sequence: Sequence, logits: npt.NDArray[np.float32]) -> None:
        params = sequence.request.params
        too_early = sequence.generated + 1 < params.min_tokens
        forbidden = self._model.end_ids | params.stop_token_ids if too_early else ()
        try:
            token_id = sequence.sampler.sample(self._candidates, logits, forbidden)
        except NoTokenAllowed as error:
            if sequence.generated:
                # What was written is what the guide allows; it is only not complete.
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
        if sequence.first_token is None:
            sequence.first_token = time.monotonic()
        self._meter.generated(1)
        tokens = _tokens(token_id, logits, params.logprobs)
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
            sequence.slot.used = time.monotonic()
            self._free.append(sequence.slot)
            self._running.remove(sequence)

    def _fail_all(self, error: RequestError) -> None:
        with self._changed:
            self._failed = error
            left, self._running = [*self._running, *self._on_trial], []
            self._on_trial.clear()
            while self._waiting:
                left.append(self._waiting.pop())
        for sequence in left:
            sequence.sampler.close()
            sequence.sink.fail(error)


def _too_many_structured_outputs() -> RequestError:
    return RequestError("OVERLOADED", "too many forms are waiting to be compiled; try again in a moment")


def _structured_output_timeout(sequence: Sequence) -> RequestError:
    """What a request is told that has waited for its guide for GUIDE_SECONDS."""
    if sequence.trial_began is None:
        return _too_many_structured_outputs()
    # Its trial is limited to much less, so that it is the machine that is too slow.
    return busy()


def _tokens(token_id: int, logits: npt.NDArray[np.float32], logprobs: int | None) -> Tokens:
    """The token with log probabilities of the model itself, before penalties, temperature and guide."""
    if logprobs is None:
        return Tokens([token_id])
    peak = float(logits.max())
    norm = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    own = [float(logits[token_id]) - norm]
    if not logprobs:
        return Tokens([token_id], own)
    best = np.argpartition(logits, -logprobs)[-logprobs:]
    best = best[np.argsort(-logits[best])]
    return Tokens([token_id], own, [[(int(i), float(logits[i]) - norm) for i in best]])
