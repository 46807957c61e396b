"""The record of one call, for the metrics and its log line, however the call ends."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from prometheus_client import Counter, Histogram

from services.runtime.failure import Failure, Reason

_log: Final = logging.getLogger(__name__)


class CallRecord(ABC):
    """The record of one call: its context is the call, and leaving it counts and logs what the call did."""

    def __init__(self, name: str, *, request_id: str, model_id: str, requests: Counter, seconds: Histogram) -> None:
        """Begin the record of a call, now.

        `name` is the message of its log line. `requests` has the labels model and outcome, `seconds` the label model.
        """
        self._name: Final = name
        self._request_id: Final = request_id
        self._model_id: Final = model_id
        self._requests: Final = requests
        self._seconds: Final = seconds
        self._accepted: Final = time.monotonic()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        outcome, seconds = _outcome(error), self._elapsed
        self._requests.labels(self._model_id, outcome).inc()
        self._seconds.labels(self._model_id).observe(seconds)
        fields = {
            "request_id": self._request_id,
            "model": self._model_id,
            "outcome": outcome,
            **self._end(succeeded=error is None),
            "seconds": round(seconds, 3),
        }
        _log.info(self._name, extra=fields)

    @property
    def _elapsed(self) -> float:
        """Seconds since the record was begun."""
        return time.monotonic() - self._accepted

    @abstractmethod
    def _begin(self) -> None:
        """Count the call as one that runs."""

    @abstractmethod
    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        """Count what the call did, and return it as fields of the log line. `succeeded` is false after an error."""


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Failure):
        return str(error.reason)
    return str(Reason.INTERNAL) if isinstance(error, Exception) else "cancelled"
