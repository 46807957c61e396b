"""Polls the state of the models' engines, and ends the requests of an engine that has lost them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

from services.runtime.failure import Failure, Reason
from services.runtime.idle_timer import CHECKS
from services.runtime.messages.message import Message
from services.worker import engine_metrics
from services.worker.engine_metrics import Cause
from services.worker.served_model import ServedModel
from services.worker.triton_client import DESCRIBE_SECONDS, TritonClient
from services.worker.triton_failures import DeadModelError

WHILE_NOT_READY_SECONDS: Final = 0.2
Model = TypeVar("Model", bound=ServedModel[Any, Any])
_Note: TypeAlias = Callable[[Model, Mapping[str, Any] | None, Cause], None]
_log: Final = logging.getLogger(__name__)


class StalledError(Failure):
    """An engine has lost its requests, although its process answers."""

    def __init__(self, seconds: float) -> None:
        """Make the failure of an engine that has made no progress for `seconds`."""
        super().__init__(Reason.MODEL_UNAVAILABLE, Message("engine_stalled", seconds=f"{seconds:.1f}"), retry_after=2.0)


def _ignore(model_id: str, ready: bool) -> None:
    pass


def _cause_of(failure: Failure) -> Cause:
    if isinstance(failure, StalledError):
        return Cause.STALLED
    if isinstance(failure, DeadModelError):
        return Cause.DIED
    if failure.reason is Reason.TIMEOUT:
        return Cause.SILENT
    return Cause.AWAY if failure.reason is Reason.MODEL_UNAVAILABLE else Cause.FAILED


class EnginePoll(ABC, Generic[Model]):
    """Keeps the description of every model up to date: set while its engine answers, and None otherwise.

    A subclass defines how one kind of engine is asked, and reads its answer.
    """

    answer_seconds: ClassVar[float] = DESCRIBE_SECONDS
    """A model that has not answered for so long gets no new requests. Those that run may still be answered."""

    def __init__(
        self,
        tritons: Mapping[str, TritonClient],
        models: Mapping[str, Model],
        *,
        interval: float,
        stall_seconds: float,
    ) -> None:
        """Poll `models` every `interval` seconds, each on its own, with `tritons`; both are by model id.

        An engine that is silent for `stall_seconds` has lost its requests.
        """
        self._tritons: Final = tritons
        self._models: Final = models
        self._stall_seconds: Final = stall_seconds
        self._intervals: Final = [interval]
        self._ready: Final = dict.fromkeys(models, False)
        self._reported: Final[dict[str, str]] = {}
        engine_metrics.prepare(models)

    @abstractmethod
    async def _ask(self, model: Model) -> Mapping[str, Any]:
        """Return the answer of the engine of `model`. Raises Failure: TIMEOUT after `stall_seconds`."""

    @abstractmethod
    def _note(self, model: Model, answer: Mapping[str, Any] | None) -> None:
        """Set `model.description` from an answer, or to None where there is none, and show both in the metrics.

        Raises StalledError, and ValueError for an answer of another model than the catalog's.
        """

    async def _is_working(self, model: Model) -> bool:
        """Return whether an engine that did not answer in time has worked on its requests meanwhile."""
        return False

    async def run(
        self, on_change: Callable[[bool], None], on_model_change: Callable[[str, bool], None] = _ignore
    ) -> None:
        """Poll forever.

        `on_change` is called with whether any model is ready, and `on_model_change` with each model's id and whether it
        is ready, whenever that changes. At first, none is.
        """

        def note(model: Model, answer: Mapping[str, Any] | None, cause: Cause) -> None:
            self._note(model, answer)
            was_ready, was_any_ready = self._ready[model.id], any(self._ready.values())
            self._ready[model.id] = ready = model.description is not None
            if ready is not was_ready:
                _log.info("model %s is %s", model.id, "ready" if ready else "not ready")
                if ready:
                    engine_metrics.STARTS.labels(model.id).inc()
                else:
                    engine_metrics.FAILURES.labels(model.id, cause).inc()
                on_model_change(model.id, ready)
            if any(self._ready.values()) is not was_any_ready:
                on_change(not was_any_ready)

        await asyncio.gather(*(self._follow(model, note) for model in self._models.values()))

    @contextlib.contextmanager
    def watched(self, interval: float) -> Iterator[None]:
        """Poll at least every `interval` seconds inside the context."""
        self._intervals.append(interval)
        try:
            yield
        finally:
            self._intervals.remove(interval)

    async def _follow(self, model: Model, note: _Note[Model]) -> None:
        while True:
            await self._look(model, note)
            seconds = min(self._intervals)
            await asyncio.sleep(seconds if self._ready[model.id] else min(seconds, WHILE_NOT_READY_SECONDS))

    async def _look(self, model: Model, note: _Note[Model]) -> None:
        asking = asyncio.ensure_future(self._ask(model))
        try:
            for _ in range(CHECKS):
                # In parts, so that time in which this event loop stands still does not count.
                await asyncio.wait({asking}, timeout=self.answer_seconds / CHECKS)
            if not asking.done():
                self._report(model, "it does not answer")
                note(model, None, Cause.SILENT)
            note(model, await asking, Cause.FAILED)
            model.described_at = time.monotonic()
            self._reported.pop(model.id, None)
        except Failure as failure:
            self._report(model, str(failure))
            note(model, None, _cause_of(failure))
            if await self._has_lost_requests(model, failure):
                message = Message("model_stopped_working", model=model.id)
                model.end_requests(Failure(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0))
        except Exception as error:  # noqa: BLE001  # whatever it was, health must stay up to date
            self._report(model, f"its description is not understood: {error!r}", error)
            note(model, None, Cause.FAILED)
        finally:
            asking.cancel()

    async def _has_lost_requests(self, model: Model, failure: Failure) -> bool:
        """Return whether the open requests will not be answered. A Triton that is about to stop still answers them."""
        if failure.reason is Reason.TIMEOUT:
            return not await self._is_working(model)
        return isinstance(failure, DeadModelError | StalledError)

    def _report(self, model: Model, trouble: str, error: Exception | None = None) -> None:
        # The same trouble is logged once.
        if self._reported.get(model.id) != trouble:
            self._reported[model.id] = trouble
            _log.warning("model %s: %s", model.id, trouble, exc_info=error)
