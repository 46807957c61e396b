"""Compiles structured outputs for trial with the library that an engine's own library compiles them with."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, Calls, StructuredOutput
from services.inference.triton_backend.fair_work import FairWork
from services.inference.triton_backend.held_calls import Notation, as_lark, as_structural_tag
from services.inference.triton_backend.trial import Trials
from services.inference.triton_backend.waiting_queue import J
from services.worker.triton_kit.request_error import RequestError

STRUCTURED_OUTPUTS_AT_ONCE: Final = 2
STRUCTURED_OUTPUT_SECONDS: Final = 9.0
"""The longest wait of a request for the trial of its structured output to begin."""
_ANY_CALL: Final = Calls("<tool_call>", "</tool_call>", '{"type":"object"}', parallel=True)
_log: Final = logging.getLogger(__name__)


class PendingTrials(Generic[J]):
    """The requests whose structured outputs are being compiled for trial. They have no slot yet."""

    def __init__(
        self, trials: Trials, *, lock: threading.Lock, limit: int, done: Callable[[J, RequestError | None], None]
    ) -> None:
        """Compile with `trials`; at most `limit` requests wait, and `lock` guards them.

        `done` is called with a request after its trial, and with the error if it failed, in a thread.
        """
        self._trials: Final = trials
        self._lock: Final = lock
        self._limit: Final = limit
        self._done: Final = done
        self._jobs: Final[dict[int, J]] = {}
        self._threads: Final = FairWork("structured-outputs", threads=STRUCTURED_OUTPUTS_AT_ONCE)

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._jobs)

    def add(self, job: J) -> None:
        """Add a request with the lock held. Raises RequestError (OVERLOADED) if there are too many."""
        if len(self._jobs) >= self._limit:
            raise _too_many()
        self._jobs[id(job)] = job

    def start(self, job: J) -> None:
        """Compile the structured output of a request that was added, without the lock held."""
        self._threads.submit(job.request.params.cache_salt, partial(self._try, job))

    def remove_cancelled(self) -> list[J]:
        """Remove and return the cancelled requests, with the lock held."""
        return [self._jobs.pop(key) for key, job in list(self._jobs.items()) if job.sink.is_cancelled()]

    def clear(self) -> list[J]:
        """Remove and return all requests, with the lock held."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        return jobs

    def close(self) -> None:
        """Stop the trials and the threads."""
        self._trials.close()
        self._threads.close()

    def _try(self, job: J) -> None:
        structured_output, problem = job.request.params.structured_output, None
        assert structured_output is not None  # noqa: S101 - only requests that have one are added
        try:
            if time.monotonic() - job.request.arrived > STRUCTURED_OUTPUT_SECONDS:
                problem = _too_many()
            elif not job.sink.is_cancelled():
                self._trials.check(structured_output)
        except RequestError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - every error must end the request
            problem = RequestError("ENGINE_FAILED", "engine_failed", reason=f"structured output: {error}")
        with self._lock:
            if self._jobs.pop(id(job), None) is None:
                return
        self._done(job, problem)


def _too_many() -> RequestError:
    return RequestError("OVERLOADED", "structured_output_queue_full")


def start_trials(module: str, model: str, library: str, **options: Any) -> Trials | None:
    """Start the trials for the checkpoint in the directory `model`, which `module` compiles with `library`.

    Return None, with a message in the log, if the library cannot be used by itself.
    """
    arguments: Mapping[str, Any] = {"model": str(Path(model).absolute()), "backend": library, **options}
    trials = Trials(module, arguments)
    try:
        trials.wait_ready()
    except (RuntimeError, RequestError) as error:
        _log.error("structured output is not supported: it cannot be compiled for trial with %s: %s", library, error)
        trials.close()
        return None
    return trials


def calls_notation(trials: Trials | None, library: str) -> Notation | None:
    """Return the notation in which calls are held to their schemas, or None if the library does not compile it."""
    notation = as_lark if library == "llguidance" else as_structural_tag
    if trials is None:
        return None
    try:
        for otherwise in (None, StructuredOutput("json_object", "")):
            trials.check(notation(_ANY_CALL, otherwise))
    except RequestError as error:
        _log.warning("calls are not held to their schemas unless they are required: %s", error)
        return None
    return notation


def library_version(library: str) -> str:
    """Return the version of an installed library, `unknown`, or an empty text without a library."""
    try:
        return importlib.metadata.version(library) if library else ""
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def kind_not_supported(engine: str) -> RequestError:
    """Return the error of a structured output that the library does not compile."""
    return RequestError(
        "UNSUPPORTED_PARAMETER", "structured_output_kind_not_supported", field=STRUCTURED_OUTPUT, engine=engine
    )
