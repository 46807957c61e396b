"""Runs checkpoints on GPUs with TensorRT-LLM's LLM API, for production. Coded for 1.2.1 and the candidates of 1.3.

It was written from TensorRT-LLM's sources and tested with a stand-in; `make gpu-smoke` checks it on a GPU. An event
loop in a separate thread starts requests and reads their results. TensorRT-LLM can neither order waiting requests nor
pause running ones: requests wait in a queue of the engine, and tokens for which a slow reader has no capacity stay in
TensorRT-LLM's own result until it has. Nor does it report every end of its own: see trtllm_watchdog.py.

Images are decoded in threads, where TensorRT-LLM also preprocesses them if it has `LLM.preprocess`. Older versions do
that in `generate_async`, in the loop, which `make gpu-smoke` measures: other requests wait meanwhile.

TensorRT-LLM limits neither the time nor the memory of compiling structured outputs. Therefore they are first compiled
for trial in a child process (trial.py) with the same library. If it cannot be used by itself, structured output is not
supported. The trial has not run in NVIDIA's image yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from services.inference.triton_backend import checkpoint
from services.inference.triton_backend.contract import VISION, Load, Request, Sink, Tokens
from services.inference.triton_backend.engine_version import reject_older
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi, is_request_error
from services.inference.triton_backend.engines.trtllm_inputs import Inputs
from services.inference.triton_backend.engines.trtllm_job import Job
from services.inference.triton_backend.engines.trtllm_jobs import Jobs
from services.inference.triton_backend.engines.trtllm_probe import Probe
from services.inference.triton_backend.engines.trtllm_rejections import EngineEndedError, Rejections
from services.inference.triton_backend.engines.trtllm_statistics import Statistics
from services.inference.triton_backend.engines.trtllm_watchdog import Watchdog
from services.inference.triton_backend.held_calls import with_calls
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.pending_trials import (
    PendingTrials,
    calls_notation,
    kind_not_supported,
    library_version,
    start_trials,
)
from services.inference.triton_backend.step_progress import Progress
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

CANCELLATION_POLL_SECONDS: Final = 0.1
HEALTH_CHECK_SECONDS: Final = 1.0
ABORT_SECONDS: Final = 5.0
"""The longest time for which an aborted request keeps its slot: a last result may follow."""
_OF_ONE_RESULT: Final = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""Errors of a result in an unknown form, which end only its own request."""
_TRIAL: Final = "services.inference.triton_backend.engines.trtllm_trial"
_log: Final = logging.getLogger(__name__)


def create(arguments: dict[str, Any]) -> TrtllmEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError, ValueError or RuntimeError with the reason."""
    return TrtllmEngine(**arguments)


class TrtllmEngine:
    """An engine with one LLM, and a thread with the event loop that reads its results."""

    name = "trtllm"

    def __init__(
        self,
        *,
        model: str,
        context_length: int,
        slots: int = 64,
        max_queued: int = 1000,
        requires: str = "",
        stall_seconds: float = 60,
        **llm: Any,
    ) -> None:
        """Load a model, which takes minutes.

        * `model`: the checkpoint's directory, as Hugging Face lays it out. The checkpoint determines the quantization.
        * `context_length`: the most tokens of prompt and generation together.
        * `slots`: the number of requests that run at once, on all GPUs together; `max_queued` more may wait.
        * `requires`: the versions of TensorRT-LLM that can run the model, as `>=1.3`; 1.3's release candidates count.
        * `stall_seconds`: the time without an answer, also to probes, after which the engine counts as failed for good.

        All other arguments are arguments of tensorrt_llm.LLM, and rejected if the installed version does not have them.
        Useful ones: tensor_parallel_size, moe_expert_parallel_size, enable_attention_dp, kv_cache_config (a mapping:
        `dtype: fp8`, enable_block_reuse, free_gpu_memory_fraction, host_cache_size), enable_chunked_prefill (not for
        images on 1.2), max_num_tokens (by default enough for the longest prompt), guided_decoding_backend (`xgrammar`;
        without one, structured output is not supported), sampler_type (before 1.3.0rc24, only `TRTLLMSampler` supports
        penalties, min_p, seed, min_tokens and logit_bias; it excludes speculative_config, and was removed in
        1.3.0rc26), cuda_graph_config, moe_config, speculative_config, trust_remote_code.
        """
        api = TrtllmApi()
        reject_older("TensorRT-LLM", api.version, requires)
        self.version = f"TensorRT-LLM {api.version}"
        self.context_length = context_length
        self.slots = slots
        self.supported_parameters = api.supported_parameters(llm)
        self._api, kinds = api, api.structured_output_kinds(llm)
        self.checkpoint: Final = checkpoint.read(Path(model))
        if self.checkpoint.image_token_id is not None:
            self.supported_parameters |= VISION
        self._llm: Final = api.load(
            self.checkpoint, model=model, context_length=context_length, slots=slots, arguments=llm
        )
        probe = Probe(api, self._llm, self.checkpoint)
        self._rejections: Final = Rejections(probe)
        self._inputs: Final = Inputs(api, self._llm, self.checkpoint, self._rejections)
        self._cache_size: Final = api.cache_size(self._llm, llm)
        self.tokenizer: Final[Any] = self._llm.tokenizer
        self._jobs: Final = Jobs(self.tokenizer, self.checkpoint, context_length, kinds)
        self._waiting: Final[WaitingQueue[Job]] = WaitingQueue(limit=max_queued)
        self._running: Final[dict[int, Job]] = {}
        self.structured_output_library: str = llm.get("guided_decoding_backend") or ""
        self.structured_output_library_version = library_version(self.structured_output_library)
        self._lock: Final = threading.Lock()
        """Held to change what `submit` and the loop share: running and waiting requests, and the engine's failure."""
        trials = start_trials(_TRIAL, model, self.structured_output_library) if kinds else None
        if trials is None:
            self.supported_parameters -= {"structured_output"}
            self.structured_output_library = self.structured_output_library_version = ""
        self._calls_notation: Final = calls_notation(trials, self.structured_output_library)
        if self._calls_notation is not None:
            self.supported_parameters |= {"calls"}
        self._on_trial: Final = (
            PendingTrials(trials, lock=self._lock, limit=max_queued, done=self._enter_after_trial) if trials else None
        )
        self._meter: Final = LoadMeter()
        self._progress: Final = Progress()
        self._watchdog: Final = Watchdog(probe, self._progress, stall_seconds=stall_seconds, fail=self._fail)
        self._statistics: Final = Statistics(self._llm)
        self._failed: RequestError | None = None
        self._loop: Final = asyncio.new_event_loop()
        self._woken: Final = asyncio.Event()
        self._watchers: list[asyncio.Task[None]] = []
        self._thread: Final = threading.Thread(target=self._run, name="trtllm", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        job = self._jobs.make(with_calls(request, self._calls_notation), sink)
        if job.request.params.structured_output is None:
            self._enter(job)
            return
        if self._on_trial is None:
            raise kind_not_supported(self.name)
        with self._lock:
            if self._failed:
                raise self._failed
            self._on_trial.add(job)
        self._on_trial.start(job)

    def _enter(self, job: Job) -> None:
        """Start or queue a request. Raises RequestError if it is rejected."""
        with self._lock:
            if self._failed:
                raise self._failed
            if len(self._running) >= self.slots:
                self._waiting.push(job)
                return
            self._running[id(job)] = job
        self._loop.call_soon_threadsafe(self._start, job)

    def _enter_after_trial(self, job: Job, problem: RequestError | None) -> None:
        """Start or queue a request whose structured output was tried, or end it. Runs in any thread."""
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
        """See Engine. The use of the cache does not count what is kept for later requests."""
        if self._failed:
            raise self._failed
        with self._lock:
            running = list(self._running.values())
        use = self._statistics.kv_cache_use
        if use is not None and not running:
            use = 0.0  # what was read last is older
        if use is None and self._cache_size is not None:
            use = min(1.0, sum(job.usage.prompt_tokens + job.generated for job in running) / self._cache_size)
        queued = len(self._waiting) + len(self._on_trial or ())
        load = self._meter.load(in_flight=len(running), queued=queued, kv_cache_use=use)
        age, hit_rate = self._watchdog.step_age(running), self._statistics.prefix_cache_hit_rate
        return replace(load, step_age_s=age, prefix_cache_hit_rate=hit_rate)

    def close(self) -> None:
        """See Engine."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        if self._on_trial is not None:
            self._on_trial.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._inputs.close()
        self._llm.shutdown()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        statistics = self._statistics.follow(self._progress, is_busy=lambda: bool(self._running))
        self._watchers = [self._loop.create_task(watch) for watch in (self._watch(), statistics)]
        self._loop.run_forever()

    async def _watch(self) -> None:
        """Handle changes of requests without a result: cancellation, capacity of readers, and the engine's health."""
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
            cancelled = self._waiting.remove_cancelled()
            if self._on_trial is not None:
                cancelled += self._on_trial.remove_cancelled()
            running = [job for job in self._running.values() if not job.ended]
        for job in cancelled:
            job.usage.queued_s = time.monotonic() - job.request.arrived
            self._cancel(job)
        for job in running:
            if job.sink.is_cancelled():
                self._cancel(job)
            elif job.output is not None:
                self._advance(job, final=False)

    def _check_health(self) -> None:
        if self._failed:
            return
        if self._api.has_ended(self._llm):
            self._fail("its processes are not healthy")
        else:
            self._watchdog.check(list(self._running.values()))

    def _start(self, job: Job) -> None:
        job.started = time.monotonic()
        job.usage.queued_s = job.started - job.request.arrived
        job.task = self._loop.create_task(self._serve(job))

    async def _serve(self, job: Job) -> None:
        try:
            inputs = await self._inputs.prepare(job)
            if not job.ended:
                await self._begin(job, inputs)
                await self._read(job)
        except RequestError as error:
            self._end(job, error)
        except EngineEndedError as end:
            self._fail(end.cause)
        except Exception as error:  # noqa: BLE001 - every error must end requests
            self._give_up(job, error)
        finally:
            # TensorRT-LLM may cancel its own task silently: then the request has not ended yet.
            self._end(job, _failed("TensorRT-LLM gave the request up"))
            self._leave(job)

    def _give_up(self, job: Job, error: Exception) -> None:
        """End a request with an error of its result, or the engine, if the error is about the engine."""
        if isinstance(error, TimeoutError) and job.ended:
            return  # nothing followed an abort
        if is_request_error(error):
            self._end(job, _failed(f"TensorRT-LLM gave the request up: {error}"))
        elif isinstance(error, _OF_ONE_RESULT):
            _log.error("a result could not be read", exc_info=error)
            self._end(job, _failed(f"its answer could not be read: {error!r}"))
            self._abort(job)
        else:
            self._fail(error)
            return
        self._watchdog.note_error(error)

    async def _begin(self, job: Job, inputs: Any) -> None:
        self._progress.note_request(list(self._running.values()))
        try:
            job.result = self._api.generate(self._llm, inputs, job.request, limit=job.limit, checkpoint=self.checkpoint)
        except Exception as error:
            raise await self._rejections.judge(job.request, error) from error
        # A prompt with images is longer now, and has ids that are not in the vocabulary.
        job.usage.prompt_tokens = len(job.result.prompt_token_ids)

    async def _read(self, job: Job) -> None:
        async with asyncio.timeout(None) as job.deadline:
            async for result in job.result:
                self._progress.note_result()
                if result.outputs:
                    job.output = result.outputs[0]
                    if new := job.count(len(job.output.token_ids)):
                        self._meter.generated(new)
                    self._advance(job, final=result.finished)
        if not job.ended:
            raise _failed("TensorRT-LLM's result ended before the answer")

    def _advance(self, job: Job, *, final: bool) -> None:
        if job.ended or not (final or job.sink.has_capacity()):
            return
        try:
            tokens = job.take(final=final)
        except RequestError as error:
            self._end(job, error)
            return
        except _OF_ONE_RESULT as error:
            self._give_up(job, error)
            return
        if job.reader.reason is not None:
            self._end(job, job.reader.reason, tokens)
            if not final:
                self._abort(job)
        elif tokens.token_ids:
            job.sink.emit(tokens)

    def _cancel(self, job: Job) -> None:
        self._meter.cancelled()
        self._end(job, "cancelled")
        self._abort(job)

    def _abort(self, job: Job) -> None:
        """Stop a request in TensorRT-LLM, which would not stop if the result were no longer read."""
        if job.result is None:
            return
        job.result.abort()
        with contextlib.suppress(RuntimeError):  # it is not read any more
            if job.deadline is not None:
                job.deadline.reschedule(self._loop.time() + ABORT_SECONDS)

    def _end(self, job: Job, end: str | RequestError, last: Tokens | None = None) -> None:
        """Send the end of a request to its sink, unless that was done before."""
        if job.ended:
            return
        job.ended = True
        if job.preparing is not None:
            job.preparing.cancel()
        if isinstance(end, RequestError):
            job.sink.fail(end)
            return
        job.sink.finish(end, job.final_usage(), last)

    def _leave(self, job: Job) -> None:
        """Give the slot of a request to the next one."""
        with self._lock:
            self._running.pop(id(job), None)
            if self._failed or not self._waiting:
                return
            following = self._waiting.pop()
            self._running[id(following)] = following
        self._start(following)

    def _fail(self, cause: Exception | str) -> None:
        why = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        error = _failed(f"it must be restarted: {why}")
        _log.critical(
            "the engine has failed and must be restarted: %s", why, exc_info=None if isinstance(cause, str) else cause
        )
        self._fail_all(error)

    def _fail_all(self, error: RequestError) -> None:
        with self._lock:
            self._failed = error
            jobs = [*self._running.values(), *(self._on_trial.clear() if self._on_trial is not None else ())]
            while self._waiting:
                jobs.append(self._waiting.pop())
        for job in jobs:
            self._end(job, error)

    async def _stop(self) -> None:
        self._fail_all(_failed("it is stopping"))
        self._watchdog.close()
        tasks = [*(job.task for job in self._running.values() if job.task), *self._watchers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(problem: str) -> RequestError:
    return RequestError("ENGINE_FAILED", "engine_failed", reason=problem)
