"""What one call did, told in its log line and in the metrics, however it ends."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Final, Self

from services.embeddings import metrics
from services.embeddings.served_model import ServedModel
from services.runtime.failure import Failure, Reason

_log: Final = logging.getLogger(__name__)


class CallRecord:
    """One Embed call on a model. Leaving its context logs it."""

    def __init__(self, request_id: str, model: ServedModel) -> None:
        """Starts now."""
        self._request_id: Final = request_id
        self._model: Final = model
        self._accepted: Final = time.monotonic()
        self.texts = 0
        self.tokens = 0

    def __enter__(self) -> Self:
        self._model.load.in_flight += 1
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._model.load.in_flight -= 1
        seconds, outcome, model_id = time.monotonic() - self._accepted, _outcome(error), self._model.id
        metrics.REQUESTS.labels(model_id, outcome).inc()
        metrics.REQUEST_SECONDS.labels(model_id).observe(seconds)
        if error is None:
            metrics.TEXTS.labels(model_id).inc(self.texts)
            metrics.TOKENS.labels(model_id).inc(self.tokens)
        _log.info(
            "embed",
            extra={
                "request_id": self._request_id,
                "model": model_id,
                "outcome": outcome,
                "texts": self.texts,
                "tokens": self.tokens,
                "seconds": round(seconds, 3),
            },
        )


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Failure):
        return str(error.reason)
    return str(Reason.INTERNAL) if isinstance(error, Exception) else "cancelled"
