"""The worker's end of GenerateMany: many calls share one stream, and outputs of several calls share one message.

A stream per call, with messages of its own, would cost both ends several times as much processor time per token
(docs/adr/0005). The gateway's end is services/gateway/routing/call_multiplexer.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Final

from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.outlet import Outlet
from services.inference.step_message import StepMessage, text_event
from services.runtime.end_tasks import end_tasks
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.runtime.tracing.trace_context import CURRENT, parse
from services.worker.grpc_server import as_failure, as_request_id

GATHER_SECONDS: Final = 0.006
"""The longest time that the first output of a step waits for the outputs of the other calls in the step."""

MOST_CREDIT: Final = 1024
MOST_CREDITS: Final = 10_000
"""The most calls that get credit in one message, which takes a few milliseconds to read."""
MOST_SECONDS: Final = 86_400.0

Generate = Callable[[pb.GenerateRequest, str, Outlet], AsyncGenerator[list[pb.Event], None]]
"""Generates for a request with an id: yields lists of events; an empty list is a heartbeat. Raises Failure.

While its reader waits, it may send events to the outlet instead.
"""


class CallDemultiplexer:
    """One stream. `responses` is used once.

    An engine decodes one token of every running call in a step. A message therefore waits until every call in the step
    has its output, but not longer than GATHER_SECONDS. A call is in one of these states:

        start ──> outside the step ──first events──> in the step ──status──> ended
                          ^                               │
                          └── no output in GATHER_SECONDS ┘

    An output that the step does not wait for is sent at once, together with the outputs that have arrived: the first or
    the last output of a call, or an output of the next step.

    Outputs that come to the outlet of a call need no such guesses: those of one step of the engine come one after
    another, and are sent when the last one has come.
    """

    def __init__(self, generate: Generate, drain: asyncio.Event) -> None:
        """Serve calls with `generate`.

        Once `drain` is set, new calls are rejected, and the stream ends with the last call.
        """
        self._generate: Final = generate
        self._drain: Final = drain
        self._tasks: Final[dict[int, asyncio.Task[None]]] = {}
        self._calls: Final[dict[int, _Call]] = {}
        self._last_call = 0
        self._message = StepMessage()
        """The outputs to send."""
        self._is_flushing = False
        self._changed: Final = asyncio.Event()
        self._in_step: Final[set[int]] = set()
        """The calls that had an output in the engine's last step, and are expected to have one in the next."""
        self._awaited: Final[set[int]] = set()
        """The calls in the step that have not had their output yet."""
        self._complete: Final = asyncio.Event()
        """Set when the outputs that have arrived are to be sent."""

    async def responses(
        self, requests: AsyncIterator[pb.GenerateManyRequest]
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        """Yield the messages to send for the `requests` received. Closing the generator ends all calls.

        Raises Failure for an invalid request, which ends the stream.
        """
        reading, draining = asyncio.create_task(self._read(requests)), asyncio.create_task(self._drain.wait())
        reading.add_done_callback(self._note_change)
        is_first = True
        draining.add_done_callback(self._note_change)
        try:
            while self._tasks or self._message or not (reading.done() or draining.done()):
                await self._changed.wait()
                self._changed.clear()
                if reading.done():
                    reading.result()
                if self._message:
                    await self._gather()
                    message, self._message = self._message, StepMessage()
                    self._complete.clear()
                    if not self._awaited:
                        self._awaited.update(self._in_step)
                    for response in message.responses():
                        if is_first:
                            response.accepts_credits, is_first = True, False
                        yield response
        finally:
            await end_tasks(reading, draining, *self._tasks.values())

    async def _gather(self) -> None:
        """Wait until all calls in the step have their output, for at most GATHER_SECONDS."""
        if not self._complete.is_set():
            timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._end_step)
            await self._complete.wait()
            timer.cancel()

    def _end_step(self) -> None:
        # The calls without an output pause: the step does not wait for them until they have events again.
        self._in_step.difference_update(self._awaited)
        self._awaited.clear()
        self._complete.set()

    async def _read(self, requests: AsyncIterator[pb.GenerateManyRequest]) -> None:
        async for request in requests:
            call = request.call
            match request.WhichOneof("action"):
                case "start":
                    self._start(call, request.start)
                case "credit":
                    self._add_credit(call, request.credit)
                case "credits":
                    self._add_credits(request.credits)
                case "cancel" if call in self._tasks:
                    self._tasks[call].cancel()

    def _add_credits(self, columns: pb.Credits) -> None:
        numbers = (len(columns.calls), len(columns.credits))
        if max(numbers) > MOST_CREDITS:
            message = Message("too_many_entries", field="credits", value=max(numbers), limit=MOST_CREDITS)
            raise invalid(message)
        for call, credit in zip(columns.calls, columns.credits, strict=False):
            self._add_credit(call, credit)

    def _add_credit(self, call: int, credit: int) -> None:
        # A call may have ended while its credit was on the way.
        if call in self._calls:
            self._calls[call].add_credit(min(credit, MOST_CREDIT))

    def _start(self, call: int, start: pb.StartCall) -> None:
        if call <= self._last_call:
            raise invalid(Message("below_minimum", field="call", value=call, least=self._last_call + 1))
        self._last_call = call
        self._calls[call] = _Call(self, call, start)
        self._tasks[call] = task = asyncio.create_task(self._run(call, start))
        task.add_done_callback(lambda _: self._forget(call))

    def _forget(self, call: int) -> None:
        del self._tasks[call], self._calls[call]
        self._in_step.discard(call)
        self._note_arrival(call)
        self._changed.set()

    def _note_change(self, _: object) -> None:
        self._changed.set()

    async def _run(self, call: int, start: pb.StartCall) -> None:
        request_id, outlet = as_request_id(start.request_id), self._calls[call]
        if start.traceparent:
            CURRENT.set(parse(start.traceparent, start.tracestate))
        limit = asyncio.timeout(None)
        failure: Failure | None = None
        try:
            self._reject_when_draining()
            limit = asyncio.timeout(_seconds(start))
            async with limit, contextlib.aclosing(self._generate(start.request, request_id, outlet)) as generation:
                async for events in generation:
                    if events:
                        await outlet.use_credit()
                    self._send(pb.CallOutput(call=call, events=events))
        except Exception as error:  # noqa: BLE001  # every error ends this call with a status
            if limit.expired():
                seconds = f"{_seconds(start):g}"
                failure = Failure(Reason.TIMEOUT, Message("answer_over_deadline", seconds=seconds))
            else:
                failure = as_failure(error, request_id=request_id)
        status = status_pb2.Status() if failure is None else failure.to_proto()
        self._send(pb.CallOutput(call=call, status=status.SerializeToString()))

    def _reject_when_draining(self) -> None:
        if self._drain.is_set():
            raise Failure(Reason.DRAINING, Message("worker_draining"), retry_after=1.0)

    def put_text(self, call: int, text: str, tokens: int, *, is_reasoning: bool) -> None:
        """Send a text delta with the other outputs of the step."""
        if not self._message.put_text(call, text, tokens, is_reasoning=is_reasoning):
            self._message.put(pb.CallOutput(call=call, events=[text_event(text, tokens, is_reasoning=is_reasoning)]))
        if not self._is_flushing:
            self._flush_soon()

    def put_events(self, call: int, events: Sequence[pb.Event]) -> None:
        """Send events with the other outputs of the step."""
        self._message.put(pb.CallOutput(call=call, events=events))
        if not self._is_flushing:
            self._flush_soon()

    def leave_step(self, call: int) -> None:
        """Wait for no further output of a call, which has an outlet."""
        self._in_step.discard(call)
        self._note_arrival(call)

    def _flush_soon(self) -> None:
        # All outputs of a step come in one turn of the event loop.
        self._is_flushing = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self._complete.set()
        self._changed.set()

    def _send(self, output: pb.CallOutput) -> None:
        self._message.put(output)
        self._changed.set()
        if output.call in self._awaited:
            self._note_arrival(output.call)
            return
        # The step does not wait for this output: it is a first or last one, or belongs to the next step.
        self._complete.set()
        if output.events and output.call not in self._in_step and not self._calls[output.call].uses_outlet:
            if self._awaited == self._in_step:
                # No output of the next step has arrived, so that the call is part of that step.
                self._awaited.add(output.call)
            self._in_step.add(output.call)

    def _note_arrival(self, call: int) -> None:
        self._awaited.discard(call)
        if not self._awaited:
            self._complete.set()


class _Call:
    """The outlet and the credit of one call."""

    def __init__(self, demultiplexer: CallDemultiplexer, number: int, start: pb.StartCall) -> None:
        self.uses_outlet = False
        self._demultiplexer: Final = demultiplexer
        self._number: Final = number
        self._accepts_text: Final = start.accepts_text_deltas
        self.credit = min(start.credit, MOST_CREDIT)
        self._waiting: asyncio.Future[None] | None = None

    def send_text(self, text: str, tokens: int, *, is_reasoning: bool) -> None:
        """See Outlet."""
        if not self._accepts_text:
            self.send_events([text_event(text, tokens, is_reasoning=is_reasoning)])
            return
        self.credit -= 1
        if not self.uses_outlet:
            self._begin()
        self._demultiplexer.put_text(self._number, text, tokens, is_reasoning=is_reasoning)

    def send_events(self, events: Sequence[pb.Event]) -> None:
        """See Outlet."""
        self.credit -= 1
        if not self.uses_outlet:
            self._begin()
        self._demultiplexer.put_events(self._number, events)

    def add_credit(self, credit: int) -> None:
        """Allow `credit` more outputs."""
        self.credit += credit
        if self.credit > 0 and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def use_credit(self) -> None:
        """Wait until the caller can take another output. Only the task of the call may wait."""
        while self.credit <= 0:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        self.credit -= 1

    def _begin(self) -> None:
        self.uses_outlet = True
        self._demultiplexer.leave_step(self._number)


def _seconds(start: pb.StartCall) -> float | None:
    if not start.HasField("timeout"):
        return None
    seconds = start.timeout.seconds + start.timeout.nanos / 1e9
    if not 0 < seconds <= MOST_SECONDS:
        raise invalid(Message("duration_out_of_range", field="timeout", value=seconds, limit=MOST_SECONDS))
    return seconds
