"""Meters a generation while it runs: bills its key, ends it when a budget is spent, and notes it in record and metrics.

All APIs share this meter.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway import metrics
from services.gateway.limit_status import SpentBudget
from services.gateway.record import Outcome, RequestRecord
from services.gateway.routing.generation import Generation
from services.gateway.routing.phases import phases_of
from services.gateway.tenancy.reservation import Reservation
from services.gateway.transcript import Transcript

_REASONS: Final = {value: name.removeprefix("FINISH_REASON_").lower() for name, value in pb.FinishReason.items()}


class MeteredGeneration:
    """A running generation. Read `events` once, and call `close` in any case."""

    def __init__(
        self,
        generation: Generation,
        reservation: Reservation,
        record: RequestRecord,
        *,
        choices: int,
        transcript: Transcript | None = None,
    ) -> None:
        """Meter `generation`, which is open and has `choices` choices, for the request that holds `reservation`."""
        self.generation: Final = generation
        self.ended_by: SpentBudget | None = None
        """The budget that ended the generation."""
        self._reservation: Final = reservation
        self.produced: Final = reservation.produced
        """The tokens so far."""
        self.has_budget: Final = reservation.has_budget
        """True if `renew_if_needed` must be called when the tokens have grown."""
        self.renew_if_needed: Final = reservation.renew_if_needed
        self._record: Final = record
        self._choices: Final = choices
        self._transcript: Final = transcript
        self._model: Final = generation.model
        self._gaps: Final = metrics.INTER_TOKEN_SECONDS.of(generation.model)
        self._finished: Final[set[int]] = set()
        self._has_events = False
        self._last_tokens: float | None = None
        self._first_is_noted = generation.has_begun
        """Whether the next group of tokens was noted before it was read."""
        if generation.has_begun:
            self.note_gap(time.perf_counter(), 1)

    async def events(self) -> AsyncIterator[list[pb.Event]]:
        """Yield the events as they arrive, except those that a caller has only counted with `count`.

        The last group ends with the usage, also if a budget has ended the generation. The request is settled before
        that group is yielded, so that its client cannot ask again while its slot is still taken.

        Raises:
            ApiError: The generation broke off.
            ClientGoneError: The client has disconnected.
        """
        self._reservation.end_generation_with(self._end_by_budget)
        async for events in self.generation.events():
            self.count(events)
            if events[-1].HasField("usage"):
                self._note_usage(events[-1].usage)
                await self._reservation.settle(self.generation.outcome)
            yield events
        if self.generation.outcome is Outcome.BUDGET:
            events = self._end()
            await self._reservation.settle(self.generation.outcome)
            yield events

    def count(self, events: Sequence[pb.Event]) -> None:
        """Meter events. It is called for all of them, whether the reader or a sink takes them."""
        self._has_events = True
        self._reservation.count(events)
        if self._transcript is not None:
            self._transcript.add(events)
        tokens = 0
        for event in events:
            if event.delta.token_count:
                tokens += event.delta.token_count
            elif event.HasField("finish"):
                self._finished.add(event.finish.index)
                self._record.receipt.note_finish(_REASONS.get(event.finish.reason, "stop"))
        if self._first_is_noted:
            self._first_is_noted = False
        elif tokens:
            self.note_gap(time.perf_counter(), tokens)

    @property
    def has_transcript(self) -> bool:
        """Whether the content is recorded, so that its events are needed."""
        return self._transcript is not None

    def count_text(self, tokens: int, now: float, *, is_reasoning: bool) -> None:
        """Meter a text delta, like `count` its event. `now` is the time of `time.perf_counter`."""
        produced = self.produced
        produced.completion += tokens
        if is_reasoning:
            produced.reasoning += tokens
        if tokens:
            self.note_gap(now, tokens)
        if self.has_budget:
            self.renew_if_needed()

    def note_gap(self, now: float, tokens: int) -> None:
        """Note that tokens have arrived together at the time `now` of `time.perf_counter`.

        Those that come with the first one have no gap.
        """
        last, self._last_tokens = self._last_tokens, now
        if last is None:
            self._note_first_tokens(now)
        else:
            self._gaps.observe((now - last) / tokens, tokens)

    def close(self) -> None:
        """End the generation if it still runs, and note its tokens."""
        self.generation.close()
        self._record.receipt.last_token_at = self._last_tokens
        produced = self._reservation.produced
        self._record.completion_tokens = produced.completion
        metrics.TOKENS.of(self._model, "completion").value += produced.completion
        metrics.COMPLETION_TOKENS.of(self._model).observe(produced.completion)
        metrics.REASONING_TOKENS.of(self._model).value += produced.reasoning
        if produced.prompt is not None:
            self._record.prompt_tokens = produced.prompt
            metrics.TOKENS.of(self._model, "prompt").value += produced.prompt
            metrics.PROMPT_TOKENS.of(self._model).observe(produced.prompt)
            metrics.CACHED_TOKENS.of(self._model).value += produced.cached

    def _end_by_budget(self) -> None:
        self.generation.cut_short(Outcome.BUDGET)

    def _end(self) -> list[pb.Event]:
        """Return the events that end the generation now. Only the tokens generated so far are billed."""
        produced = self._reservation.produced
        unfinished = [index for index in range(self._choices) if index not in self._finished]
        if unfinished:
            self.ended_by = self._reservation.spent
        usage = pb.Usage(
            prompt_tokens=produced.prompt or 0,
            completion_tokens=produced.completion,
            cached_tokens=produced.cached,
            reasoning_tokens=produced.reasoning,
        )
        beginning = [] if self._has_events else [pb.Event(started=self.generation.started or pb.Started())]
        finishes = [pb.Event(finish=pb.Finish(index=index, reason=pb.FINISH_REASON_LENGTH)) for index in unfinished]
        if unfinished:
            self._record.receipt.note_finish("length")
        self._record.receipt.last_token_at = self._last_tokens
        if self._transcript is not None:
            self._transcript.add(finishes)
        return [*beginning, *finishes, pb.Event(usage=usage)]

    def _note_usage(self, usage: pb.Usage) -> None:
        notes = self._record.receipt
        notes.last_token_at = self._last_tokens
        notes.worker_ms = phases_of(usage.timings)
        if usage.HasField("served_by"):
            served_by = usage.served_by
            notes.worker, notes.engine, notes.engine_version = (
                served_by.worker,
                served_by.engine or notes.engine,
                served_by.engine_version or notes.engine_version,
            )

    def _note_first_tokens(self, now: float) -> None:
        record = self._record
        record.first_token_ms, record.first_token_at = round((now - self.generation.began_at) * 1000, 1), now
        metrics.FIRST_TOKEN_SECONDS.of(self._model).observe(now - record.began, link=record.exemplar())
