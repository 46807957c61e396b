"""Measures the progress of an engine by the results and statistics of its library."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final, Protocol

from services.inference.triton_backend.contract import Usage

LEAST_PREFILL_TOKENS_PER_SECOND: Final = 2_000
"""The least speed of reading prompts of an engine that works, although no request has a token meanwhile."""


class Job(Protocol):
    """The record of an engine about one request."""

    @property
    def is_computed(self) -> bool:
        """Whether the library works on it, or has queued it."""

    @property
    def usage(self) -> Usage:
        """The usage up to now."""

    @property
    def first_token(self) -> float | None:
        """The time of its first token on the monotonic clock; None before it."""


class Progress:
    """The time of the last progress of an engine."""

    def __init__(self) -> None:
        """Start before any progress."""
        self.noted_at = 0.0
        """The time of the last progress on the monotonic clock."""
        self.result_at = 0.0
        """The time of the last result, likewise."""

    def note_result(self) -> None:
        """Note that a result has come."""
        self.noted_at = self.result_at = time.monotonic()

    def note_iterations(self) -> None:
        """Note that the engine has made iterations."""
        self.noted_at = time.monotonic()

    def note_request(self, running: Collection[Job]) -> None:
        """Note that a request begins beside those that are `running`.

        It counts as progress only if it is alone: requests may all wait for an engine that hangs.
        """
        if not any(job.is_computed for job in running):
            self.noted_at = time.monotonic()

    def step_age(self, running: Collection[Job]) -> float | None:
        """Return the age of the last step in seconds, as `Load` describes it.

        Results show steps. Prompts that are not read yet add the time that reading them may take.
        """
        working = [job for job in running if job.is_computed]
        if not working:
            return None
        unread = sum(job.usage.prompt_tokens for job in working if job.first_token is None)
        age = time.monotonic() - self.noted_at - unread / LEAST_PREFILL_TOKENS_PER_SECOND
        return round(max(0.0, age), 3)
