"""Many generations over one gRPC stream from a worker, which sends the output of an engine step in one message."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

import grpc
from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.routing.failures import failure_of_rpc, model_unavailable
from services.gateway.routing.send_queue import SendQueue
from services.runtime.failure import Failure, Reason, from_proto
from services.runtime.idle_timer import IdleTimer
from services.runtime.messages.message import Message

WINDOW: Final = 256
"""Outputs of a call that may be unread because its client is slow. Beyond them the engine pauses the request."""

Rpc = grpc.aio.StreamStreamCall[pb.GenerateManyRequest, pb.GenerateManyResponse]


class EventSink(Protocol):
    """Takes events when they arrive, without waking the task that reads the call, which would cost more than a write.

    Neither method may wait. An exception in one of them ends only this call.
    """

    def take(self, events: Sequence[pb.Event]) -> bool:
        """Take events and return True, or leave them to the reader and return False. `flush` writes them."""
        ...

    def flush(self) -> None:
        """Write the events that were taken."""
        ...


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
        self._unacknowledged = 0
        self._sink: EventSink | None = None
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
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

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
        # A reader that was woken but has not run yet must read first, to keep the order.
        if self._sink is None or self._reader is None or self._inbox:
            return False
        try:
            taken = self._sink.take(events)
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error)
            return True
        if taken:
            self._acknowledge(1)
        return taken

    def _acknowledge(self, outputs: int) -> None:
        self._unacknowledged += outputs
        if self._unacknowledged >= WINDOW // 2 and not self._ended:
            self._multiplexer.send(self._number, credit=self._unacknowledged)
            self._unacknowledged = 0

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _activity(self) -> int:
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
        self._tasks: Final = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    @property
    def open(self) -> bool:
        """Whether new calls can begin."""
        return not self._tasks[0].done()

    async def close(self) -> None:
        """End the stream and its calls."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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

    def send(self, number: int, **action: Any) -> None:
        """Queue a message about a call. `action` is its field: `start`, `credit` or `cancel`."""
        self._unsent.put(pb.GenerateManyRequest(call=number, **action))

    def forget(self, number: int) -> None:
        """Remove a call that has ended."""
        self._calls.pop(number, None)

    async def _read(self) -> None:
        failure = model_unavailable()
        try:
            while isinstance(response := await self._rpc.read(), pb.GenerateManyResponse):
                self.messages += 1
                # Drop outputs of calls that have been cancelled meanwhile.
                outputs = ((self._calls.get(output.call), output) for output in response.outputs)
                # Write all of them together, so that a client process that reads many streams is woken only once.
                for call in [call for call, output in outputs if call is not None and call.receive(output)]:
                    call.flush()
        except grpc.aio.AioRpcError as broken:
            failure = failure_of_rpc(broken)
        finally:
            self._tasks[1].cancel()
            for call in list(self._calls.values()):
                call.end(failure)

    async def _write(self) -> None:
        while True:
            request = await self._unsent.get()
            try:
                await self._rpc.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # `_read` gets the stream's error.
