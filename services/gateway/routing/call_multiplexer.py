"""Many answers over one gRPC stream from a worker: whatever an engine's step makes for them comes in one message."""

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

WINDOW: Final = 256
"""Outputs of a call that may wait for a client that reads slowly; then the engine pauses."""

Rpc = grpc.aio.StreamStreamCall[pb.GenerateManyRequest, pb.GenerateManyResponse]


class EventSink(Protocol):
    """Takes events when they arrive, without waking the task that reads the call, which would cost more than a write.

    Neither method may wait. A fault in one of them ends the call, and no other.
    """

    def take(self, events: Sequence[pb.Event]) -> bool:
        """Take events; False leaves them to the reader. What was taken is written by `flush`."""
        ...

    def flush(self) -> None:
        """Write what was taken."""
        ...


class SilentWorkerError(Exception):
    """A worker gave no sign of life for too long. Its call was cancelled."""


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
        """Wait up to `seconds` (None: for ever) for the beginning of the answer; return whether it came.

        Raises Failure, SilentWorkerError, and CallCancelledError.
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
        """Yield the events, from the first, in groups of what is ready. Raises as `start` does."""
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
        """Wait until there is an output, or the end. Raises what it ended with."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._idle_timer.beat()
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def receive(self, output: pb.CallOutput) -> bool:
        """Take what the worker sent; return whether `flush` is to be called before anything else runs."""
        self._idle_timer.beat()
        if output.HasField("status"):
            status = status_pb2.Status.FromString(output.status)
            self.end(None if status.code == 0 else from_proto(status) or Failure(Reason.INTERNAL, status.message))
        elif output.events:
            if self._is_taken(output.events):
                return True
            self._inbox.append(output)
            self._wake()
        return False

    def flush(self) -> None:
        """Have the sink write what it took, also when the call has ended with the same message."""
        try:
            if self._sink is not None:
                self._sink.flush()
        except Exception as error:  # noqa: BLE001  # it is the fault of this call, and must not end all those of the stream
            self._give_up(error)

    def end(self, error: Exception | None) -> None:
        """End it, once what was received is read. Only the first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._idle_timer.cancel()
            self._multiplexer.forget(self._number)
            self._wake()

    def cancel(self) -> None:
        """Stop it, in the worker and the engine too. Nothing happens when it has ended."""
        self._give_up(CallCancelledError())

    def _give_up(self, error: Exception) -> None:
        if not self._ended:
            self._multiplexer.cancel(self._number)
            self._inbox.clear()
            self.end(error)

    def _is_taken(self, events: Sequence[pb.Event]) -> bool:
        # The reader may have been woken and not have come yet: it goes first.
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
            # Nobody waits, so that nobody waits for too long.
            self._idle_timer.beat()
        return self._multiplexer.messages


class CallMultiplexer:
    """The gateway's end of one stream to a worker, from its opening until it breaks or the worker ends it."""

    def __init__(self, rpc: Rpc) -> None:
        """Read and write `rpc` until `close`."""
        self._rpc: Final = rpc
        self._calls: Final[dict[int, MultiplexedCall]] = {}
        self._numbers: Final = itertools.count(1)
        self._unsent: Final = SendQueue()
        self.messages = 0
        """How many came from the worker."""
        self._tasks: Final = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    @property
    def open(self) -> bool:
        """Whether calls can be begun."""
        return not self._tasks[0].done()

    async def close(self) -> None:
        """End it, and the calls that are left."""
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
        """Tell the worker that a call is over, if it was told of it at all."""
        if not self._unsent.take_back(number):
            self.send(number, cancel=pb.CancelCall())

    def send(self, number: int, **action: Any) -> None:
        """Send the worker something about a call: `start`, `credit` or `cancel`."""
        self._unsent.put(pb.GenerateManyRequest(call=number, **action))

    def forget(self, number: int) -> None:
        """Let go of a call that has ended."""
        self._calls.pop(number, None)

    async def _read(self) -> None:
        failure = model_unavailable()
        try:
            while isinstance(response := await self._rpc.read(), pb.GenerateManyResponse):
                self.messages += 1
                # Outputs of calls that were cancelled while these were on their way are dropped.
                outputs = ((self._calls.get(output.call), output) for output in response.outputs)
                # A process that reads many answers is woken once, when they are written one right after the other.
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
                return  # Its reader finds out why.
