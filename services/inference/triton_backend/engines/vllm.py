"""Runs checkpoints with vLLM: its engine AsyncLLM (V1), on GPUs with the CUDA build, on CPUs with the CPU build.

vLLM generates in processes of its own. An event loop in a separate thread starts requests, and reads their outputs,
each of which has the new tokens. vLLM can neither limit its queue nor pause a running request: requests wait in a queue
of the engine, and tokens for which a slow reader has no capacity stay here until it has.

Images are decoded, and preprocessed by vLLM's processor of the model, in threads. Structured outputs are compiled for
trial in a child process (trial.py) with the library that vLLM compiles them with: in vLLM, an error of the library at
the wrong moment would end the engine for everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from services.inference.triton_backend import checkpoint
from services.inference.triton_backend.contract import VISION, Load, Request, Sink, Usage
from services.inference.triton_backend.engine_version import reject_older
from services.inference.triton_backend.engines import vllm_output, vllm_structured_output
from services.inference.triton_backend.engines.vllm_api import VllmApi
from services.inference.triton_backend.engines.vllm_inputs import Inputs
from services.inference.triton_backend.engines.vllm_job import Job
from services.inference.triton_backend.engines.vllm_statistics import Statistics
from services.inference.triton_backend.event_loop_thread import EventLoopThread
from services.inference.triton_backend.held_calls import with_calls
from services.inference.triton_backend.load_meter import LoadMeter
from services.inference.triton_backend.pending_trials import (
    PendingTrials,
    calls_notation,
    kind_not_supported,
    library_version,
    start_trials,
)
from services.inference.triton_backend.request_checks import checked_prompt
from services.inference.triton_backend.step_progress import Progress
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError

CANCELLATION_POLL_SECONDS: Final = 0.1
HEALTH_CHECK_SECONDS: Final = 1.0
PROGRESS_SECONDS: Final = 1.0
"""The age of the last step up to which a request without tokens counts as being read."""
SHUTDOWN_SECONDS: Final = 10.0
_log: Final = logging.getLogger(__name__)


def create(arguments: dict[str, Any]) -> VllmEngine:
    """Return the engine for `engine_args`. Raises OSError, TypeError, ValueError or RuntimeError with the reason."""
    return VllmEngine(**arguments)


class VllmEngine:
    """An engine with one AsyncLLM, and a thread with the event loop that reads its outputs."""

    name = "vllm"

    def __init__(
        self,
        *,
        model: str,
        context_length: int,
        slots: int = 64,
        max_queued: int = 1000,
        requires: str = "",
        stall_seconds: float = 60,
        structured_outputs_config: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        """Load a model, which takes minutes.

        * `model`: the checkpoint's directory, as Hugging Face lays it out. The checkpoint determines the quantization.
        * `context_length`: the most tokens of prompt and generation together.
        * `slots`: the number of requests that run at once, on all GPUs together; `max_queued` more may wait.
        * `requires`: the versions of vLLM that can run the model, as `>=0.30.0`.
        * `stall_seconds`: the time without a step while there are requests, after which the engine counts as failed for
          good.
        * `structured_outputs_config`: its `backend` is `guidance` (the default) or `xgrammar`.

        All other arguments are arguments of vLLM's AsyncEngineArgs, and rejected if the installed version does not have
        them. Useful ones: tensor_parallel_size, data_parallel_size, enable_expert_parallel, gpu_memory_utilization,
        kv_cache_dtype (`fp8`), max_num_batched_tokens, enable_prefix_caching, limit_mm_per_prompt, mm_processor_kwargs,
        speculative_config (which excludes min_p and logit_bias), kv_transfer_config or kv_offloading_size (host
        memory), quantization, compilation_config, enforce_eager, trust_remote_code.
        """
        self.checkpoint: Final = checkpoint.read(Path(model))
        api = self._api = VllmApi()
        reject_older("vLLM", api.version, requires)
        api.reject_unknown(arguments)
        config = vllm_structured_output.configuration(structured_outputs_config)
        self.version = f"vLLM {api.version}"
        self.context_length = context_length
        self.slots = slots
        self.supported_parameters = api.supported_parameters(arguments)
        if self.checkpoint.image_token_id is not None:
            self.supported_parameters |= VISION
        self._backend: Final[str] = config["backend"]
        self._kinds: Final = vllm_structured_output.kinds(config)
        self._lock: Final = threading.Lock()
        """Held to change what `submit` and the loop share: running and waiting requests, and the engine's failure."""
        self._prepare_structured_output(model, config, max_queued)
        self._waiting: Final[WaitingQueue[Job]] = WaitingQueue(limit=max_queued)
        self._running: Final[dict[int, Job]] = {}
        self._names: Final = itertools.count()
        self._meter: Final = LoadMeter()
        self._progress: Final = Progress()
        self._stall_seconds: Final = stall_seconds
        self._statistics: Final = Statistics(self._progress)
        self._failed: RequestError | None = None
        self._woken: Final = asyncio.Event()
        self._loop: Final = EventLoopThread("vllm")
        try:
            self._llm: Final = self._loop.run(
                api.load(
                    model=model,
                    context_length=context_length,
                    slots=slots,
                    statistics=self._statistics,
                    arguments={**arguments, "structured_outputs_config": config},
                )
            )
        except BaseException:
            self._loop.close()
            raise
        self.tokenizer: Final[Any] = self._llm.get_tokenizer()
        self._inputs: Final = Inputs(self._llm, context_length)
        self._watcher: Final = self._loop.run(self._start_watching())

    def submit(self, request: Request, sink: Sink) -> None:
        """See Engine."""
        job = self._job(with_calls(request, self._calls_notation), sink)
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

    def wake(self) -> None:
        """See Engine."""
        self._loop.call(self._woken.set)

    def load(self) -> Load:
        """See Engine. The use of the cache does not count what is kept for later requests."""
        if self._failed:
            raise self._failed
        with self._lock:
            running = list(self._running.values())
        # What was read last is older than the end of the last request.
        use = self._statistics.kv_cache_use if running else 0.0
        queued = len(self._waiting) + len(self._on_trial or ())
        load = self._meter.load(in_flight=len(running), queued=queued, kv_cache_use=use)
        age, hit_rate = self._progress.step_age(running), self._statistics.prefix_cache_hit_rate
        return replace(load, step_age_s=age, prefix_cache_hit_rate=hit_rate)

    def close(self) -> None:
        """See Engine."""
        self._loop.run(self._stop())
        if self._on_trial is not None:
            self._on_trial.close()
        self._inputs.close()
        self._llm.shutdown(SHUTDOWN_SECONDS)
        self._loop.close()

    def _prepare_structured_output(self, model: str, config: dict[str, Any], max_queued: int) -> None:
        library = vllm_structured_output.LIBRARIES[self._backend]
        trials = start_trials(
            vllm_structured_output.TRIAL,
            model,
            self._backend,
            vocabulary=self.checkpoint.vocabulary,
            disable_any_whitespace=config["disable_any_whitespace"],
        )
        if trials is None:
            self.supported_parameters -= {"structured_output"}
            library = ""
        self.structured_output_library: str = library
        self.structured_output_library_version = library_version(library)
        self._calls_notation = calls_notation(trials, library)
        if self._calls_notation is not None:
            self.supported_parameters |= {"calls"}
        self._on_trial = (
            PendingTrials[Job](trials, lock=self._lock, limit=max_queued, done=self._enter_after_trial)
            if trials
            else None
        )

    def _job(self, request: Request, sink: Sink) -> Job:
        """Return the job of a request. Raises RequestError if it is rejected."""
        prompt, limit = checked_prompt(
            request,
            tokenizer=self.tokenizer,
            checkpoint=self.checkpoint,
            context_length=self.context_length,
            structured_output_kinds=self._kinds,
            engine=self.name,
        )
        return Job(request, sink, prompt, limit, Usage(prompt_tokens=len(prompt)))

    def _enter(self, job: Job) -> None:
        """Start or queue a request. Raises RequestError if it is rejected."""
        with self._lock:
            if self._failed:
                raise self._failed
            if len(self._running) >= self.slots:
                self._waiting.push(job)
                return
            self._running[id(job)] = job
        self._loop.call(self._start, job)

    def _enter_after_trial(self, job: Job, problem: RequestError | None) -> None:
        """Start or queue a request whose structured output was tried, or end it. Runs in any thread."""
        output = job.request.params.structured_output
        try:
            if problem is None and output is not None and not job.sink.is_cancelled():
                translated = vllm_structured_output.translated(output, self._backend)
                job.request = replace(job.request, params=replace(job.request.params, structured_output=translated))
                self._enter(job)
                return
        except RequestError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if problem is None:
                self._loop.call(self._cancel, job)
            else:
                self._loop.call(self._end, job, problem)

    async def _start_watching(self) -> asyncio.Task[None]:
        return self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        """Handle changes of requests without an output: cancellation, capacity of readers, and the engine's health."""
        next_health_check = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCELLATION_POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            try:
                self._sweep()
                if time.monotonic() >= next_health_check and not self._failed:
                    next_health_check = time.monotonic() + HEALTH_CHECK_SECONDS
                    await self._check_health()
            except Exception as error:  # noqa: BLE001 - without this task, nothing is cancelled any more
                self._fail(error)

    async def _check_health(self) -> None:
        """Raise an error for an engine that has ended, or makes no step any more."""
        await self._llm.check_health()
        age = self._progress.step_age(list(self._running.values()))
        if age is not None and age > self._stall_seconds:
            raise TimeoutError(f"no step for {age:.0f} s")

    def _sweep(self) -> None:
        with self._lock:
            cancelled = self._waiting.remove_cancelled()
            if self._on_trial is not None:
                cancelled += self._on_trial.remove_cancelled()
            running = [job for job in self._running.values() if not job.ended]
        for job in cancelled:
            job.usage.queued_s = time.monotonic() - job.request.arrived
            self._cancel(job)
        is_stepping = time.monotonic() - self._progress.noted_at < PROGRESS_SECONDS
        for job in running:
            if job.sink.is_cancelled():
                self._cancel(job)
            elif job.pending:
                self._pass_on(job)
            elif is_stepping and job.is_computed and job.first_token is None:
                job.sink.note_progress()

    def _start(self, job: Job) -> None:
        job.started = time.monotonic()
        job.usage.queued_s = job.started - job.request.arrived
        job.task = self._loop.create_task(self._serve(job))
        # A task that is cancelled before its first step never runs, also not its `finally`.
        job.task.add_done_callback(lambda _: self._leave(job))

    async def _serve(self, job: Job) -> None:
        try:
            inputs = await self._inputs.prepare(job)
            if not job.ended:
                await self._generate(job, inputs)
        except asyncio.CancelledError:
            if not job.ended:
                raise
        except RequestError as error:
            self._end(job, error)
        except Exception as error:  # noqa: BLE001 - every error must end requests
            self._give_up(job, error)

    def _give_up(self, job: Job, error: Exception) -> None:
        """End a request with an error of its own, or the engine, if the error is its end."""
        if self._api.is_end(error):
            self._fail(error)
        elif job.generated == 0 and self._api.is_request_error(error):
            self._end(job, vllm_structured_output.rejection(job.request, error))
        else:
            _log.error("a request has failed in vLLM", exc_info=error)
            self._end(job, _failed(f"vLLM gave the request up: {error.__cause__ or error!r}"))

    async def _generate(self, job: Job, inputs: Any) -> None:
        self._progress.note_request(list(self._running.values()))
        outputs = self._api.generate(
            self._llm,
            inputs,
            job.request,
            name=str(next(self._names)),
            limit=job.limit,
            checkpoint=self.checkpoint,
        )
        job.is_submitted = True
        # When this task is cancelled, or the reading ends early, closing the generator aborts the request.
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                self._progress.note_result()
                if new := job.note(output):
                    self._meter.generated(new)
                if output.finished:
                    self._end(job, vllm_output.finish_reason(output))
                else:
                    self._pass_on(job)

    def _pass_on(self, job: Job) -> None:
        if not job.ended and job.pending and job.sink.has_capacity():
            tokens = job.take()
            if tokens is not None:
                job.sink.emit(tokens)

    def _cancel(self, job: Job) -> None:
        if job.ended:
            return
        self._meter.cancelled()
        self._end(job, "cancelled")
        if job.task is not None:
            job.task.cancel()

    def _end(self, job: Job, end: str | RequestError) -> None:
        """Send the end of a request to its sink, with the last tokens, unless that was done before."""
        if job.ended:
            return
        job.ended = True
        if isinstance(end, RequestError):
            job.sink.fail(end)
        else:
            job.sink.finish(end, job.final_usage(), job.take())

    def _leave(self, job: Job) -> None:
        """Give the slot of a request to the next one."""
        self._end(job, _failed("vLLM gave the request up"))
        with self._lock:
            self._running.pop(id(job), None)
            if self._failed or not self._waiting:
                return
            following = self._waiting.pop()
            self._running[id(following)] = following
        self._start(following)

    def _fail(self, cause: Exception) -> None:
        if self._failed:
            return
        why = f"{type(cause).__name__}: {cause}"
        _log.critical("the engine has failed and must be restarted: %s", why, exc_info=cause)
        self._fail_all(_failed(f"it must be restarted: {why}"))

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
        tasks = [*(job.task for job in self._running.values() if job.task), self._watcher]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(problem: str) -> RequestError:
    return RequestError("ENGINE_FAILED", "engine_failed", reason=problem)
