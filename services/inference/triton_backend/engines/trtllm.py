"""Runs checkpoints on GPUs with TensorRT-LLM's LLM API: production. Coded for 1.2.1 and the candidates of 1.3.

It was written from TensorRT-LLM's sources and tested against a stand-in; `make gpu-smoke` checks it on a GPU. A loop in
a thread of its own starts requests and reads their results. TensorRT-LLM can neither order requests that wait nor pause
one that runs: waiting ones wait here, and what a slow reader has no room for stays in TensorRT-LLM's own result until
it has.

Images are decoded in threads, and there TensorRT-LLM makes them into its own form where it has `LLM.preprocess`. Before
some candidate of 1.3 it has not, and does so in `generate_async`, in the loop: meanwhile no answer's tokens are passed
on. `make gpu-smoke` says for how long.

Guides are compiled by TensorRT-LLM, whose API limits neither the time nor the memory for it. Before a guide reaches it,
it is compiled for trial in a child process (trial.py) with the same library. Where that library cannot be used by
itself, guides are unsupported. The trial has not run in NVIDIA's image yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.inference.triton_backend.contract import (
    VISION,
    Load,
    Params,
    Request,
    Sink,
    Tokens,
    Usage,
    output_limit,
    reject_unknown_tokens,
)
from services.inference.triton_backend.engines import trtllm_checkpoint
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi, is_request_error
from services.inference.triton_backend.engines.trtllm_result import ResultReader
from services.inference.triton_backend.fair_work import FairWork
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.prompt_images import decode, reject_misplaced
from services.inference.triton_backend.trial import Trials
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

CANCELLATION_POLL_SECONDS: Final = 0.1
HEALTH_CHECK_SECONDS: Final = 1.0
ABORT_SECONDS: Final = 5.0
"""How long an aborted request keeps its slot at most: a last result may follow."""
PROBE_SECONDS: Final = 10.0
LEAST_PREFILL_TOKENS_PER_SECOND: Final = 2_000
"""An engine that reads prompts faster than this lives, though no request has a token meanwhile."""
STRUCTURED_OUTPUTS_AT_ONCE: Final = 2
STRUCTURED_OUTPUT_SECONDS: Final = 9.0
"""How long a request waits for the trial of its structured output to begin."""
_TRIAL: Final = "services.inference.triton_backend.engines.trtllm_trial"
IMAGES_AT_ONCE: Final = 2
"""So many requests' images are decoded at the same time: a large one takes hundreds of MiB meanwhile."""
_log: Final = logging.getLogger(__name__)


def create(arguments: dict[str, Any]) -> TrtllmEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError, ValueError or RuntimeError with the reason."""
    return TrtllmEngine(**arguments)


@dataclass(slots=True, eq=False)
class _Job:
    """One request."""

    request: Request
    sink: Sink
    limit: int
    usage: Usage
    answer: ResultReader
    task: asyncio.Task[None] | None = None
    preparing: asyncio.Future[Any] | None = None
    """At its images."""
    result: Any = None
    output: Any = None
    deadline: asyncio.Timeout | None = None
    """Of what comes after an abort."""
    generated: int = 0
    """By TensorRT-LLM; perhaps not passed on yet."""
    started: float = 0.0
    first_token: float | None = None
    ended: bool = False
    """Its sink was told the end."""


class TrtllmEngine:
    """One LLM, and a thread with the loop that it answers in."""

    name = "trtllm"

    def __init__(
        self,
        *,
        model: str,
        context_length: int,
        slots: int = 64,
        max_queued: int = 1000,
        requires: str = "",
        **llm: Any,
    ) -> None:
        """Loads a model, which takes minutes.

        * `model`: the checkpoint's directory, as Hugging Face lays it out. Quantization is the checkpoint's.
        * `context_length`: most tokens of a prompt and its answer.
        * `slots`: how many requests run at once (TensorRT-LLM's max_batch_size); `max_queued` more may wait.
        * `requires`: the versions of TensorRT-LLM that can run the model, as `>=1.3`; 1.3's release candidates count.

        Everything else is an argument of tensorrt_llm.LLM, by its own name, and refused when the installed version does
        not have it. Useful ones: tensor_parallel_size, moe_expert_parallel_size, enable_attention_dp, kv_cache_config
        (a mapping: `dtype: fp8`, enable_block_reuse, free_gpu_memory_fraction, host_cache_size), enable_chunked_prefill
        (not for images on 1.2), max_num_tokens (by default enough for the longest prompt), guided_decoding_backend
        (`xgrammar`; without one, guides are unsupported), sampler_type (before 1.3.0rc24 only `TRTLLMSampler` honours
        penalties, min_p and seed, which are unsupported otherwise; not with speculative_config, and gone since
        1.3.0rc26), cuda_graph_config, moe_config, speculative_config, trust_remote_code.
        """
        api = TrtllmApi()
        api.reject_older(requires)
        self.version = f"TensorRT-LLM {api.version}"
        self.context_length = context_length
        self.slots = slots
        self.supported_parameters = api.supported_parameters(llm)
        self._structured_output_kinds: Final = api.structured_output_kinds(llm)
        self._api: Final = api
        self.checkpoint: Final = trtllm_checkpoint.read(Path(model))
        if self.checkpoint.image_token_id is not None:
            self.supported_parameters |= VISION
        self._llm: Final = api.load(
            self.checkpoint, model=model, context_length=context_length, slots=slots, arguments=llm
        )
        self._cache_size: Final = api.cache_size(self._llm, llm)
        self.tokenizer: Final[Any] = self._llm.tokenizer
        self._eos_id: Final[int | None] = self.tokenizer.eos_token_id
        self._end_ids: Final = self.checkpoint.end_ids | ({self._eos_id} if self._eos_id is not None else set())
        self._waiting: Final[WaitingQueue[_Job]] = WaitingQueue(limit=max_queued)
        self._running: Final[dict[int, _Job]] = {}
        self._on_trial: Final[dict[int, _Job]] = {}
        """Those whose guides are being compiled for trial. They have no slot yet."""
        self._max_queued: Final = max_queued
        self.guide_library: str = llm.get("guided_decoding_backend") or ""
        self.guide_library_version = _version(self.guide_library)
        self._trials: Final = _trials(model, self.guide_library) if self._structured_output_kinds else None
        if self._trials is None:
            self.supported_parameters -= {"structured_output"}
            self.guide_library = self.guide_library_version = ""
        self._compile_threads: Final = FairWork("trtllm-guides", threads=STRUCTURED_OUTPUTS_AT_ONCE)
        self._meter: Final = LoadMeter()
        self._progressed = 0.0
        """When a result last came, or the only request began."""
        self._failed: RequestError | None = None
        self._lock: Final = threading.Lock()
        """Held for what `submit` and the loop both change: who runs, who waits, whether the engine failed."""
        self._image_threads: Final = ThreadPoolExecutor(IMAGES_AT_ONCE, thread_name_prefix="trtllm-images")
        self._loop: Final = asyncio.new_event_loop()
        self._woken: Final = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._thread: Final = threading.Thread(target=self._run, name="trtllm", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        job = self._job(request, sink)
        if request.params.structured_output is None:
            self._enter(job)
            return
        if self._trials is None:
            raise RequestError("UNSUPPORTED_PARAMETER", "guide is not supported by the engine trtllm; leave it out")
        with self._lock:
            if self._failed:
                raise self._failed
            if len(self._on_trial) >= self._max_queued:
                raise RequestError("OVERLOADED", "too many forms are waiting to be compiled; try again in a moment")
            self._on_trial[id(job)] = job
        self._compile_threads.submit(request.params.cache_salt, partial(self._try_structured_output, job, self._trials))

    def _enter(self, job: _Job) -> None:
        """Start or queue a request. Raises RequestError when it is refused."""
        with self._lock:
            if self._failed:
                raise self._failed
            if len(self._running) >= self.slots:
                self._waiting.push(job)
                return
            self._running[id(job)] = job
        self._loop.call_soon_threadsafe(self._start, job)

    def _try_structured_output(self, job: _Job, trials: Trials) -> None:
        """Compile a request's guide for trial, and start or queue the request then. Runs in a thread of its own."""
        structured_output, problem = job.request.params.structured_output, None
        assert structured_output is not None  # noqa: S101 - or it is not tried
        try:
            if time.monotonic() - job.request.arrived > STRUCTURED_OUTPUT_SECONDS:
                problem = RequestError("OVERLOADED", "too many forms are waiting to be compiled; try again in a moment")
            elif not job.sink.is_cancelled():
                trials.check(structured_output)
        except RequestError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the request must hear of it
            problem = RequestError("ENGINE_FAILED", f"a guide could not be tried: {error}")
        with self._lock:
            if self._on_trial.pop(id(job), None) is None:
                return
        try:
            if problem is None and not job.sink.is_cancelled():
                self._enter(job)
                return
        except RequestError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if problem is None:
                self._loop.call_soon_threadsafe(self._cancel, job)
            else:
                self._loop.call_soon_threadsafe(self._end, job, problem)

    def wake(self) -> None:
        """See Engine."""
        self._loop.call_soon_threadsafe(self._woken.set)

    def load(self) -> Load:
        """See Engine. The cache's use is of the tokens that requests hold, without what is kept for later ones."""
        if self._failed:
            raise self._failed
        with self._lock:
            running = list(self._running.values())
        held = sum(job.usage.prompt_tokens + job.generated for job in running)
        load = self._meter.load(
            in_flight=len(running),
            queued=len(self._waiting) + len(self._on_trial),
            kv_cache_use=None if self._cache_size is None else min(1.0, held / self._cache_size),
        )
        return replace(load, step_age_s=self._step_age(running))

    def _step_age(self, running: list[_Job]) -> float | None:
        """Return the age of the last step, as `Load` describes it.

        TensorRT-LLM does not report steps. Results show them, and unread prompts get the time that reading them takes.
        """
        working = [job for job in running if _is_computed(job)]
        if not working:
            return None
        unread = sum(job.usage.prompt_tokens for job in working if job.first_token is None)
        age = time.monotonic() - self._progressed - unread / LEAST_PREFILL_TOKENS_PER_SECOND
        return round(max(0.0, age), 3)

    def close(self) -> None:
        """See Engine."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        if self._trials is not None:
            self._trials.close()
        self._compile_threads.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._image_threads.shutdown(cancel_futures=True)
        self._llm.shutdown()

    def _job(self, request: Request, sink: Sink) -> _Job:
        """Raises RequestError for what would harm the engine, or fail in it without saying why."""
        params, prompt, vocabulary = request.params, request.prompt_token_ids, self.checkpoint.vocabulary
        if request.text_input is not None:
            prompt = self.tokenizer.encode(request.text_input, add_special_tokens=False)
        limit = output_limit(len(prompt), params, self.context_length)
        reject_unknown_tokens("prompt_token_ids", prompt, vocabulary)
        reject_unknown_tokens("stop_token_ids", params.stop_token_ids, vocabulary)
        reject_unknown_tokens("logit_bias", (token_id for token_id, _ in params.logit_bias), vocabulary)
        if params.structured_output is not None and params.structured_output.kind not in self._structured_output_kinds:
            raise RequestError(
                "UNSUPPORTED_PARAMETER", f"guide.{params.structured_output.kind} is not supported by the engine trtllm"
            )
        reject_misplaced(request, prompt, self.checkpoint.image_token_id)
        answer = ResultReader(params, limit=limit, end_ids=self._end_ids, eos_id=self._eos_id)
        return _Job(request, sink, limit, Usage(prompt_tokens=len(prompt)), answer)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._watcher = self._loop.create_task(self._watch())
        self._loop.run_forever()

    async def _watch(self) -> None:
        """Look after requests that can change without a token."""
        next_health_check = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCELLATION_POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            try:
                self._sweep()
                if time.monotonic() >= next_health_check:
                    next_health_check = time.monotonic() + HEALTH_CHECK_SECONDS
                    self._check_health()
            except Exception as error:  # noqa: BLE001 - without this task, nothing is cancelled any more
                self._fail(error)

    def _sweep(self) -> None:
        with self._lock:
            gone = self._waiting.remove_cancelled()
            for key, job in list(self._on_trial.items()):
                if job.sink.is_cancelled():
                    gone.append(self._on_trial.pop(key))
            running = [job for job in self._running.values() if not job.ended]
        for job in gone:
            job.usage.queued_s = time.monotonic() - job.request.arrived
            self._cancel(job)
        for job in running:
            if job.sink.is_cancelled():
                self._cancel(job)
            elif job.output is not None:
                self._advance(job, final=False)

    def _check_health(self) -> None:
        # Not in all versions.
        check = getattr(self._llm, "_check_health", None)
        if check is not None and not self._failed and not check():
            self._fail("its processes are not healthy")

    def _start(self, job: _Job) -> None:
        job.started = time.monotonic()
        job.usage.queued_s = job.started - job.request.arrived
        job.task = self._loop.create_task(self._serve(job))

    async def _serve(self, job: _Job) -> None:
        try:
            inputs = await self._inputs(job)
            if not job.ended:
                await self._begin(job, inputs)
                await self._read(job)
        except RequestError as error:
            self._end(job, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, requests must hear of it
            if is_request_error(error):
                self._end(job, RequestError("ENGINE_FAILED", f"TensorRT-LLM gave the request up: {error}"))
            # Nothing may follow an abort.
            elif not (isinstance(error, TimeoutError) and job.ended):
                self._fail(error)
        finally:
            # Theirs may be cancelled without a word.
            self._end(job, RequestError("ENGINE_FAILED", "TensorRT-LLM gave the request up"))
            self._leave(job)

    async def _inputs(self, job: _Job) -> Any:
        """Return the inputs for TensorRT-LLM. A thread prepares images; a cancelled request does not wait for it."""
        if not job.request.images:
            return self._api.inputs(job.request)
        job.preparing = self._loop.run_in_executor(self._image_threads, self._prepare_images, job)
        try:
            return await job.preparing
        except asyncio.CancelledError:
            if not job.ended:
                raise
            return None
        except RequestError:
            raise
        except Exception as error:
            raise await self._rejection(job, error) from error

    def _prepare_images(self, job: _Job) -> Any:
        images = decode(job.request, is_wanted=lambda: not job.ended)
        return self._api.inputs(job.request, images, llm=self._llm, limit=job.limit, checkpoint=self.checkpoint)

    async def _begin(self, job: _Job, inputs: Any) -> None:
        # A request beside others is no sign of life: they may all wait for an engine that stands still.
        if not any(_is_computed(other) for other in list(self._running.values())):
            self._progressed = time.monotonic()
        try:
            job.result = self._api.generate(self._llm, inputs, job.request, limit=job.limit, checkpoint=self.checkpoint)
        except Exception as error:
            raise await self._rejection(job, error) from error
        # With images, it has become longer. Its ids are not the vocabulary's then.
        job.usage.prompt_tokens = len(job.result.prompt_token_ids)

    async def _rejection(self, job: _Job, error: Exception) -> Exception:
        """Whose fault it is that a request did not begin: the caller's, or the engine's, which has ended then."""
        # Only what it says of itself is its end. Images are read by code that raises anything.
        if isinstance(error, RuntimeError) and not is_request_error(error):
            end = await self._end_of_engine() if job.request.images else error
            if end is not None:
                return end
        return RequestError("INVALID_ARGUMENT", f"TensorRT-LLM refuses the request: {error}")

    async def _end_of_engine(self) -> Exception | None:
        """Ask for one token; returns what an engine says that has stopped."""
        request = Request(Params(max_tokens=1), [0])
        try:
            probe = self._api.generate(
                self._llm, self._api.inputs(request), request, limit=1, checkpoint=self.checkpoint
            )
            async with asyncio.timeout(PROBE_SECONDS):
                async for _ in probe:
                    pass
        except TimeoutError:
            # A busy one takes longer, and lives.
            probe.abort()
        except Exception as error:  # noqa: BLE001 - it may say anything
            return error if isinstance(error, RuntimeError) and not is_request_error(error) else None
        return None

    async def _read(self, job: _Job) -> None:
        async with asyncio.timeout(None) as job.deadline:
            async for result in job.result:
                self._progressed = time.monotonic()
                if result.outputs:
                    job.output = result.outputs[0]
                    self._count(job, len(job.output.token_ids))
                    self._advance(job, final=result.finished)
        if not job.ended:
            raise RequestError("ENGINE_FAILED", "TensorRT-LLM's result ended before the answer did")

    def _count(self, job: _Job, generated: int) -> None:
        if generated > job.generated and not job.ended:
            job.first_token = job.first_token or time.monotonic()
            self._meter.generated(generated - job.generated)
            job.generated = generated

    def _advance(self, job: _Job, *, final: bool) -> None:
        if job.ended or not (final or job.sink.has_capacity()):
            return
        try:
            tokens = job.answer.take(job.output, final=final)
        except RequestError as error:
            self._end(job, error)
            return
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # One answer in a form that we do not know is no reason to end the others.
            _log.exception("an answer could not be read")
            self._end(job, RequestError("ENGINE_FAILED", f"TensorRT-LLM's answer could not be read: {error!r}"))
            self._abort(job)
            return
        if job.answer.reason is not None:
            self._end(job, job.answer.reason, tokens)
            if not final:
                self._abort(job)
        elif tokens.token_ids:
            job.sink.emit(tokens)

    def _cancel(self, job: _Job) -> None:
        self._meter.cancelled()
        self._end(job, "cancelled")
        self._abort(job)

    def _abort(self, job: _Job) -> None:
        """Stop it in TensorRT-LLM. To stop reading would not."""
        if job.result is not None and job.deadline is not None:
            job.result.abort()
            job.deadline.reschedule(self._loop.time() + ABORT_SECONDS)

    def _end(self, job: _Job, end: str | RequestError, last: Tokens | None = None) -> None:
        """Tell its sink how it ended, unless it was told."""
        if job.ended:
            return
        job.ended = True
        if job.preparing is not None:
            job.preparing.cancel()
        if isinstance(end, RequestError):
            job.sink.fail(end)
            return
        now, usage = time.monotonic(), job.usage
        usage.completion_tokens = job.answer.taken
        usage.cached_tokens = getattr(job.result, "cached_tokens", 0) or 0
        if job.first_token is not None:
            usage.prefill_s = job.first_token - job.started
            usage.decode_s = now - job.first_token
            usage.first_token_s = job.first_token - job.request.arrived
        job.sink.finish(end, usage, last)

    def _leave(self, job: _Job) -> None:
        """Give its slot to the next one."""
        with self._lock:
            self._running.pop(id(job), None)
            if self._failed or not self._waiting:
                return
            following = self._waiting.pop()
            self._running[id(following)] = following
        self._start(following)

    def _fail(self, cause: Exception | str) -> None:
        why = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        error = RequestError("ENGINE_FAILED", f"the engine has failed and must be restarted: {why}")
        _log.critical(error.message, exc_info=None if isinstance(cause, str) else cause)
        self._fail_all(error)

    def _fail_all(self, error: RequestError) -> None:
        with self._lock:
            self._failed = error
            jobs = [*self._running.values(), *self._on_trial.values()]
            self._on_trial.clear()
            while self._waiting:
                jobs.append(self._waiting.pop())
        for job in jobs:
            self._end(job, error)

    async def _stop(self) -> None:
        self._fail_all(RequestError("ENGINE_FAILED", "the engine is stopping"))
        tasks = [job.task for job in self._running.values() if job.task] + ([self._watcher] if self._watcher else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_computed(job: _Job) -> bool:
    """Whether TensorRT-LLM works on it, or is to."""
    return job.result is not None and not job.ended


def _trials(model: str, library: str) -> Trials | None:
    """The trials of guides; None, with a message in the log, where the library cannot be used by itself."""
    trials = Trials(_TRIAL, {"model": str(Path(model).absolute()), "backend": library})
    try:
        trials.wait_ready()
    except (RuntimeError, RequestError) as error:
        _log.error("guides are not supported: they cannot be compiled for trial with %s: %s", library, error)
        trials.close()
        return None
    return trials


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library) if library else ""
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
