"""Detects an engine that answers no request any more, or fails all of them, without another sign of its end.

The thread in TensorRT-LLM that generates can end, and the process of a GPU can die, while requests are still accepted;
after an error of the device, every request fails. Nothing in TensorRT-LLM's API reports this: a probe does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from typing import Final

from services.inference.triton_backend.engines.trtllm_job import Job
from services.inference.triton_backend.engines.trtllm_probe import Probe
from services.inference.triton_backend.step_progress import Progress

PROBE_AFTER_SECONDS: Final = 5.0
"""The time without progress after which the engine is probed."""
PROBES: Final = 2
"""The number of probes in a row without an answer, and without other progress, that show the end of the engine."""
ERRORS_IN_A_ROW: Final = 8
"""The number of failed requests without a result between them after which the engine is probed."""
_OF_THE_ENGINE: Final = re.compile(
    r"CUDA|NCCL|cublas|illegal memory access|device-side assert|Sampling failed", re.IGNORECASE
)
"""Errors after which the engine is probed at once. A caller's text may contain them too, so that they prove nothing."""


class Watchdog:
    """Watches one engine, in its loop."""

    def __init__(
        self,
        probe: Probe,
        progress: Progress,
        *,
        stall_seconds: float,
        fail: Callable[[Exception | str], None],
    ) -> None:
        """Call `fail` once for an engine that is silent for `stall_seconds`, or does not recover from errors."""
        self._probe: Final = probe
        self._progress: Final = progress
        self._stall_seconds: Final = stall_seconds
        self._fail: Final = fail
        self._silent_since: float | None = None
        """The time of the last sign of life, while the engine is under suspicion."""
        self._is_urgent = False
        """Whether requests fail, so that silence is not needed to suspect the engine."""
        self._unanswered = 0
        self._errors = 0
        self._last_error = 0.0
        self._probing: asyncio.Task[None] | None = None

    def check(self, running: Collection[Job]) -> None:
        """Probe the engine if there is reason to, without waiting for the result."""
        if self._probing is not None and not self._probing.done():
            return
        if self._silent_since is None:
            age = self._progress.step_age(running)
            if age is None or age < PROBE_AFTER_SECONDS:
                return
            self._silent_since = time.monotonic() - age
        self._probing = asyncio.get_running_loop().create_task(self._probe_once())

    def note_error(self, error: Exception) -> None:
        """Note that TensorRT-LLM has given a request up with `error`."""
        if self._progress.result_at > self._last_error:
            self._errors = 0
        self._last_error = time.monotonic()
        self._errors += 1
        if self._errors >= ERRORS_IN_A_ROW or _OF_THE_ENGINE.search(str(error)):
            self._is_urgent = True
            self._silent_since = self._silent_since or time.monotonic()

    def step_age(self, running: Collection[Job]) -> float | None:
        """Return the age of the engine's last step in seconds, as `Load` describes it.

        An engine under suspicion stays without progress until a probe clears it, even if its requests were cancelled.
        """
        age, since = self._progress.step_age(running), self._silent_since
        return age if since is None else max(age or 0.0, round(time.monotonic() - since, 3))

    def close(self) -> None:
        """Stop a probe that runs."""
        if self._probing is not None:
            self._probing.cancel()

    async def _probe_once(self) -> None:
        began = time.monotonic()
        problem = await self._probe.run()
        progressed_at = self._progress.result_at if self._is_urgent else self._progress.noted_at
        if problem is None or progressed_at > began:
            self._trust()
            return
        if self._probe.is_end(problem):
            self._fail(problem)
            return
        self._unanswered += 1
        silence = time.monotonic() - (self._silent_since or 0.0)
        if self._unanswered < PROBES:
            return
        if not isinstance(problem, TimeoutError):
            self._fail(f"it fails every request: {problem}")
        elif self._is_urgent or silence >= self._stall_seconds:
            self._fail(f"it has answered nothing for {silence:.0f} s, and no probe either")

    def _trust(self) -> None:
        self._progress.note_result()
        self._silent_since, self._is_urgent, self._unanswered, self._errors = None, False, 0, 0
