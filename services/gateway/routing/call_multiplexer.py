"""Many generations over one gRPC stream from a worker, which sends the output of an engine step in one message."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.routing.event_sink import EventSink, text_event
from services.gateway.routing.failures import failure_of_rpc, model_unavailable
from services.gateway.routing.send_queue import SendQueue
from services.runtime.end_tasks import end_tasks
from services.runtime.failure import Failure, Reason, from_proto
from services.runtime.idle_timer import IdleTimer
from services.runtime.lasting_task import lasting_task
from services.runtime.messages.message import Message

WINDOW: Final = 256
"""Outputs of a call that may be unread because its client is slow. Beyond them the engine pauses the request."""
MOST_UNACKNOWLEDGED: Final = WINDOW // 2
"""Outputs of a call that were read, of which the worker is told at the latest."""
WORTH_ACKNOWLEDGING: Final = WINDOW // 8
"""Outputs of which the worker is told together with those of another call. A message costs as much as ten tokens."""
MOST_ACKNOWLEDGED: Final = 10_000
"""The most calls that a message acknowledges, as the proto says."""

Rpc = grpc.aio.StreamStreamCall[pb.GenerateManyRequest, pb.GenerateManyResponse]
MOST_JOINED: Final = 8
"""The most messages whose events are written together because the event loop is behind."""
LARGE_MESSAGE: Final = 32
"""The outputs of a message whose handling takes so long that the next one is read meanwhile, and may join its write."""
TURNS: Final = 3
"""Turns of the event loop in which a message that has arrived is read."""


class SilentWorkerError(Exception):
    """The worker sent no heartbeat for too long. The call was cancelled."""


class CallCancelledError(Exception):
    """`cancel` ended the call."""


class MultiplexedCall:
    """One running generation."""

    def __init__(self, multiplexer: CallMultiplexer, number: int, *, idle_seconds: float) -> None:
        """Begin the call `number` of `multiplexer`.

        It times out when its reader waits for `idle_seconds` without a message from the worker. For some time, messages
        for other calls count too, because an overloaded worker may serve this call late.
        """
        self.started: pb.Started | None = None
        self._multiplexer: Final = multiplexer
        self._number: Final = number
        self._loop: Final = asyncio.get_running_loop()
        self._inbox: Final[deque[pb.CallOutput]] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self.unacknowledged = 0
        """Outputs that were read since the worker was last told."""
        self.path: EventSink | None = None
        """The sink, while it may take events: a reader waits, and has everything that came before."""
        self._sink: EventSink | None = None
        self._has_taken = False
        """Whether the sink has taken text since the last look of the timer."""
        self._idle_timer: Final = IdleTimer(
            idle_seconds, lambda: self._give_up(SilentWorkerError()), activity=self._activity
        )

    async def start(self, *, seconds: float | None) -> bool:
        """Wait up to `seconds` (None: without limit) for the first output. Return whether it arrived.

        Raises:
            Failure: The worker ended the call with a failure.
            SilentWorkerError: The worker sent no heartbeat for too long.
            CallCancelledError: `cancel` was called.
        """
        if seconds is None:
            await self._wait()
        else:
            try:
                async with asyncio.timeout(seconds):
                    await self._wait()
            except TimeoutError:
                return False
        if self._inbox:
            self._note_beginning(self._inbox[0].events)
        return True

    def __aiter__(self) -> AsyncIterator[list[pb.Event]]:
        """Yield all events, in groups of those that are ready. Raises as `start` does."""
        return self._events()

    async def _events(self) -> AsyncIterator[list[pb.Event]]:
        while True:
            if not self._inbox:
                await self._wait()
            if not self._inbox:
                return
            outputs = list(self._inbox)
            self._note_beginning(outputs[0].events)
            self._inbox.clear()
            self._acknowledge(len(outputs))
            yield [event for output in outputs for event in output.events]

    def offer_to(self, sink: EventSink | None) -> None:
        """Offer events that arrive while the reader waits to `sink` first. Events that it takes are not read again.

        None ends the offer.
        """
        self._sink = sink
        if self.path is not None:
            self.path = sink

    def _note_beginning(self, events: Sequence[pb.Event]) -> None:
        if self.started is None:
            self.started = events[0].started

    async def _wait(self) -> None:
        """Wait until there is an output or the call has ended. Raises the error that it ended with."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._idle_timer.note_heartbeat()
            self._reader, self.path = self._loop.create_future(), self._sink
            try:
                await self._reader
            finally:
                self._reader = self.path = None

    def receive(self, output: pb.CallOutput) -> bool:
        """Handle one output. Return whether `flush` must be called before anything else runs."""
        self._idle_timer.note_heartbeat()
        if output.HasField("status"):
            status = status_pb2.Status.FromString(output.status)
            self.end(
                None
                if status.code == 0
                else from_proto(status) or Failure(Reason.INTERNAL, Message.verbatim(status.message))
            )
        elif output.events:
            if self._offer(output.events):
                return True
            self._inbox.append(output)
            self._wake()
        return False

    def receive_text(self, text: str, tokens: int, now: float, is_reasoning: bool) -> bool:
        """Handle a text delta. Return whether `flush` must be called."""
        path = self.path
        if path is not None:
            try:
                is_taken = path.take_text(text, tokens, now, is_reasoning)
            except Exception as error:  # noqa: BLE001  # an error of this call must not end the stream's other calls
                self._give_up(error)
                return True
            if is_taken:
                self._has_taken = True
                self.unacknowledged += 1
                if self.unacknowledged >= MOST_UNACKNOWLEDGED:
                    self._acknowledge(0)
                return True
        self._idle_timer.note_heartbeat()
        event = text_event(text, tokens, is_reasoning=is_reasoning)
        self._inbox.append(pb.CallOutput(events=[event]))
        self._wake()
        return False

    def flush(self) -> None:
        """Have the sink write what it took, also if the same message has ended the call."""
        try:
            if self._sink is not None:
                self._sink.flush()
        except Exception as error:  # noqa: BLE001  # an error of this call must not end the stream's other calls
            self._give_up(error)

    def end(self, error: Exception | None) -> None:
        """End the call, once the received outputs are read. Only the first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._idle_timer.cancel()
            self._multiplexer.forget(self._number)
            self._wake()

    def cancel(self) -> None:
        """Cancel the call, also in the worker and the engine. Does nothing if it has ended."""
        self._give_up(CallCancelledError())

    def _give_up(self, error: Exception) -> None:
        if not self._ended:
            self._multiplexer.cancel(self._number)
            self._inbox.clear()
            self.end(error)

    def _offer(self, events: Sequence[pb.Event]) -> bool:
        """Offer events to the sink. Return whether they need not be read."""
        if self.path is None:
            return False
        try:
            taken = self.path.take(events)
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error)
            return True
        if taken:
            self._acknowledge(1)
        return taken

    def _acknowledge(self, outputs: int) -> None:
        self.unacknowledged += outputs
        if self.unacknowledged >= MOST_UNACKNOWLEDGED and not self._ended:
            self._multiplexer.acknowledge(self._number)

    def _wake(self) -> None:
        # A reader that was woken but has not run yet must read first, to keep the order.
        self.path = None
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _activity(self) -> int:
        if self._has_taken:
            self._has_taken = False
            self._idle_timer.note_heartbeat()
        if self._reader is None:
            # Without a waiting reader, the call cannot time out.
            self._idle_timer.note_heartbeat()
        return self._multiplexer.messages


class CallMultiplexer:
    """The gateway's end of one stream to a worker, until the stream breaks or the worker ends it."""

    def __init__(self, rpc: Rpc) -> None:
        """Read and write `rpc` until `close`."""
        self._rpc: Final = rpc
        self._calls: Final[dict[int, MultiplexedCall]] = {}
        self._numbers: Final = itertools.count(1)
        self._unsent: Final = SendQueue()
        self.messages = 0
        """The number of messages that the worker has sent."""
        self._accepts_credits = False
        self._is_acknowledging = False
        self._tasks: Final = (lasting_task(self._read()), lasting_task(self._write()))

    @property
    def open(self) -> bool:
        """Whether new calls can begin."""
        return not self._tasks[0].done()

    async def close(self) -> None:
        """End the stream and its calls."""
        await end_tasks(*self._tasks)
        self._rpc.cancel()

    def call(self, start: pb.StartCall, *, idle_seconds: float) -> MultiplexedCall:
        """Begin a call."""
        number = next(self._numbers)
        self._calls[number] = call = MultiplexedCall(self, number, idle_seconds=idle_seconds)
        start.credit = WINDOW
        self.send(number, start=start)
        return call

    def cancel(self, number: int) -> None:
        """Cancel a call in the worker, or remove its start from the send queue if it is still there."""
        if not self._unsent.remove_start(number):
            self.send(number, cancel=pb.CancelCall())

    def acknowledge(self, number: int) -> None:
        """Tell the worker how many outputs of a call were read, if it can together with other calls' outputs."""
        if not self._accepts_credits:
            call = self._calls[number]
            self.send(number, credit=call.unacknowledged)
            call.unacknowledged = 0
        elif not self._is_acknowledging:
            self._acknowledge_soon()

    def _acknowledge_soon(self) -> None:
        self._is_acknowledging = True
        asyncio.get_running_loop().call_soon(self._acknowledge_all)

    def _acknowledge_all(self) -> None:
        self._is_acknowledging = False
        columns = pb.Credits()
        worth = ((each, call) for each, call in self._calls.items() if call.unacknowledged >= WORTH_ACKNOWLEDGING)
        for each, call in itertools.islice(worth, MOST_ACKNOWLEDGED):
            columns.calls.append(each)
            columns.credits.append(call.unacknowledged)
            call.unacknowledged = 0
        if columns.calls:
            self._unsent.put(pb.GenerateManyRequest(credits=columns))
        if len(columns.calls) == MOST_ACKNOWLEDGED:
            # Others may be left, whose windows are used up.
            self._acknowledge_soon()

    def send(self, number: int, **action: Any) -> None:
        """Queue a message about a call. `action` is its field: `start`, `credit` or `cancel`."""
        self._unsent.put(pb.GenerateManyRequest(call=number, **action))

    def forget(self, number: int) -> None:
        """Remove a call that has ended."""
        self._calls.pop(number, None)

    async def _read(self) -> None:
        failure = model_unavailable()
        # A read while a message is handled; None while there is none.
        reading: asyncio.Task[Any] | None = None
        try:
            response = await self._rpc.read()
            while isinstance(response, pb.GenerateManyResponse):
                if _size(response) >= LARGE_MESSAGE:
                    # Begin to read the next message now, because handling this one takes long.
                    reading = asyncio.create_task(self._rpc.read())
                    await asyncio.sleep(0)
                unwritten: dict[MultiplexedCall, None] = {}
                self._receive(response, unwritten)
                joined = 1
                while reading is not None and joined < MOST_JOINED and await _is_done_soon(reading):
                    # The event loop is behind: a later step joins the write of this one.
                    if not isinstance(following := reading.result(), pb.GenerateManyResponse):
                        break
                    reading = asyncio.create_task(self._rpc.read())
                    await asyncio.sleep(0)
                    self._receive(following, unwritten)
                    joined += 1
                # Write all of them together, so that a client process that reads many streams is woken only once.
                for call in unwritten:
                    call.flush()
                response, reading = await (reading or self._rpc.read()), None
        except grpc.aio.AioRpcError as broken:
            failure = failure_of_rpc(broken)
        finally:
            if reading is not None:
                reading.cancel()
            self._tasks[1].cancel()
            for call in list(self._calls.values()):
                call.end(failure)

    def _receive(self, response: pb.GenerateManyResponse, unwritten: dict[MultiplexedCall, None]) -> None:
        """Hand a message to its calls, and add to `unwritten` those that have something to write."""
        self.messages += 1
        if response.accepts_credits:
            self._accepts_credits = True
        calls, now = self._calls, time.perf_counter()
        for column, is_reasoning in ((response.reasoning_contents, True), (response.contents, False)):
            for number, text, tokens in zip(column.calls, column.texts, column.token_counts, strict=True):
                # Outputs of calls that have been cancelled meanwhile are dropped.
                call = calls.get(number)
                if call is None:
                    continue
                if call.receive_text(text, tokens, now, is_reasoning):
                    unwritten[call] = None
                elif call in unwritten:
                    _write_before_reader(call, unwritten)
        for output in response.outputs:
            call = calls.get(output.call)
            if call is None:
                continue
            if call.receive(output):
                unwritten[call] = None
            elif call in unwritten:
                _write_before_reader(call, unwritten)

    async def _write(self) -> None:
        while True:
            request = await self._unsent.get()
            try:
                await self._rpc.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # `_read` gets the stream's error.


def _write_before_reader(call: MultiplexedCall, unwritten: dict[MultiplexedCall, None]) -> None:
    """Write what a sink has taken before the reader of the call, which was woken, runs."""
    del unwritten[call]
    call.flush()


def _size(response: pb.GenerateManyResponse) -> int:
    return len(response.contents.calls) + len(response.reasoning_contents.calls) + len(response.outputs)


async def _is_done_soon(reading: asyncio.Task[Any]) -> bool:
    """Return whether a message has arrived, after the turns of the event loop in which it would be read."""
    for _ in range(TURNS):
        if reading.done():
            break
        await asyncio.sleep(0)
    return reading.done() and reading.exception() is None
