"""Compiles structured outputs of llama.cpp's sequences in threads, before the sequences are queued for a slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from services.inference.triton_backend.engines.llama_sequence import Sequence
from services.inference.triton_backend.fair_work import FairWork
from services.inference.triton_backend.trial import Trials, busy
from services.worker.triton_kit.request_error import RequestError

STRUCTURED_OUTPUT_SECONDS: Final = 9.0
"""The longest wait of a request for its structured output: for its turn, the trial and the compilation."""
STRUCTURED_OUTPUTS_AT_ONCE: Final = 2


class Compilations:
    """The sequences whose structured outputs are being compiled. They have no slot yet."""

    def __init__(
        self, trials: Trials, *, changed: threading.Condition, limit: int, queue: Callable[[Sequence], None]
    ) -> None:
        """Compile after a trial by `trials`; at most `limit` sequences wait.

        `queue` queues a sequence with its compiled structured output for a slot, and may raise RequestError. It is
        called with the lock of `changed` held, which guards the sequences, and `changed` is notified then.
        """
        self._trials: Final = trials
        self._changed: Final = changed
        self._limit: Final = limit
        self._queue: Final = queue
        self._sequences: Final[list[Sequence]] = []
        self._threads: Final = FairWork("llamacpp-structured-outputs", threads=STRUCTURED_OUTPUTS_AT_ONCE)

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Add a sequence with the lock held. Raises RequestError (OVERLOADED) if there are too many."""
        if len(self._sequences) >= self._limit:
            raise _too_many()
        self._sequences.append(sequence)

    def start(self, sequence: Sequence) -> None:
        """Compile the structured output of a sequence that was added, without the lock held."""
        self._threads.submit(sequence.request.params.cache_salt, partial(self._compile, sequence))

    def remove_expired(self) -> list[tuple[Sequence, RequestError | None]]:
        """Remove and return sequences that are cancelled, with None, or have waited too long, with the error."""
        latest = time.monotonic() - STRUCTURED_OUTPUT_SECONDS
        expired: list[tuple[Sequence, RequestError | None]] = []
        for sequence in list(self._sequences):
            cancelled = sequence.sink.is_cancelled()
            if not cancelled and sequence.request.arrived >= latest:
                continue
            with self._changed:
                if sequence not in self._sequences:
                    continue
                self._sequences.remove(sequence)
                sequence.is_over = True
            expired.append((sequence, None if cancelled else _timeout(sequence)))
        return expired

    def clear(self) -> list[Sequence]:
        """Remove and return all sequences, with the lock held."""
        sequences = list(self._sequences)
        self._sequences.clear()
        return sequences

    def close(self) -> None:
        """Stop the trials and the threads."""
        self._trials.close()
        self._threads.close()

    def _compile(self, sequence: Sequence) -> None:
        problem = None
        try:
            if not (sequence.is_over or sequence.sink.is_cancelled()):
                sequence.trial_began = time.monotonic()
                sequence.sampler.make_structured_output(self._trials)
        except RequestError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - every error must end the request
            problem = RequestError("ENGINE_FAILED", "engine_failed", reason=f"structured output: {error}")
        with self._changed:
            if sequence not in self._sequences:
                return
            if problem is None and sequence.sampler.lacks_structured_output:
                # It was cancelled; the engine's thread ends it.
                return
            self._sequences.remove(sequence)
            if problem is None:
                try:
                    self._queue(sequence)
                except RequestError as error:
                    problem = error
            self._changed.notify()
        if problem is not None:
            sequence.sampler.close()
            sequence.sink.fail(problem)


def _too_many() -> RequestError:
    return RequestError("OVERLOADED", "structured_output_queue_full")


def _timeout(sequence: Sequence) -> RequestError:
    """Return the error of a request that has waited for its structured output for STRUCTURED_OUTPUT_SECONDS."""
    if sequence.trial_began is None:
        return _too_many()
    # A trial takes much less time, so that the machine is too slow.
    return busy()
