"""The worker's end of GenerateMany: many calls share one stream, and outputs of several calls share one message.

A stream per call, with messages of its own, would cost both ends several times as much processor time per token
(docs/adr/0005). The gateway's end is services/gateway/routing/call_multiplexer.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final

from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.worker.grpc_server import MAX_MESSAGE_BYTES, as_failure, as_request_id

GATHER_SECONDS: Final = 0.006
"""The longest time that the first output of a step waits for the outputs of the other calls in the step."""

MOST_RESPONSE_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024
"""A larger message would end the stream, and with it all calls."""
MOST_CREDIT: Final = 1024
MOST_SECONDS: Final = 86_400.0

Generate = Callable[[pb.GenerateRequest, str], AsyncGenerator[list[pb.Event], None]]
"""Generates for a request with an id: yields lists of events; an empty list is a heartbeat. Raises Failure."""


class CallDemultiplexer:
    """One stream. `responses` is used once.

    An engine decodes one token of every running call in a step. A message therefore waits until every call in the step
    has its output, but not longer than GATHER_SECONDS. A call is in one of these states:

        start ──> outside the step ──first events──> in the step ──status──> ended
                          ^                               │
                          └── no output in GATHER_SECONDS ┘

    An output that the step does not wait for is sent at once, together with the outputs that have arrived: the first or
    the last output of a call, or an output of the next step.
    """

    def __init__(self, generate: Generate, drain: asyncio.Event) -> None:
        """Serve calls with `generate`.

        Once `drain` is set, new calls are rejected, and the stream ends with the last call.
        """
        self._generate: Final = generate
        self._drain: Final = drain
        self._tasks: Final[dict[int, asyncio.Task[None]]] = {}
        self._credits: Final[dict[int, asyncio.Semaphore]] = {}
        self._last_call = 0
        self._outputs: list[pb.CallOutput] = []
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
        draining.add_done_callback(self._note_change)
        try:
            while self._tasks or self._outputs or not (reading.done() or draining.done()):
                await self._changed.wait()
                self._changed.clear()
                if reading.done():
                    reading.result()
                if self._outputs:
                    await self._gather()
                    outputs, self._outputs = self._outputs, []
                    self._complete.clear()
                    if not self._awaited:
                        self._awaited.update(self._in_step)
                    for response in responses_of(outputs):
                        yield response
        finally:
            tasks = [reading, draining, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
                case "credit" if call in self._credits:
                    for _ in range(min(request.credit, MOST_CREDIT)):
                        self._credits[call].release()
                case "cancel" if call in self._tasks:
                    self._tasks[call].cancel()

    def _start(self, call: int, start: pb.StartCall) -> None:
        if call <= self._last_call:
            raise invalid(Message("below_minimum", field="call", value=call, least=self._last_call + 1))
        self._last_call = call
        self._credits[call] = asyncio.Semaphore(min(start.credit, MOST_CREDIT))
        self._tasks[call] = task = asyncio.create_task(self._run(call, start))
        task.add_done_callback(lambda _: self._forget(call))

    def _forget(self, call: int) -> None:
        del self._tasks[call], self._credits[call]
        self._in_step.discard(call)
        self._note_arrival(call)
        self._changed.set()

    def _note_change(self, _: object) -> None:
        self._changed.set()

    async def _run(self, call: int, start: pb.StartCall) -> None:
        request_id, credit = as_request_id(start.request_id), self._credits[call]
        limit = asyncio.timeout(None)
        failure: Failure | None = None
        try:
            self._reject_when_draining()
            limit = asyncio.timeout(_seconds(start))
            async with limit, contextlib.aclosing(self._generate(start.request, request_id)) as generation:
                async for events in generation:
                    if events:
                        await credit.acquire()
                    self._send(pb.CallOutput(call=call, events=events))
        except Exception as error:  # noqa: BLE001  # every error ends this call with a status
            if limit.expired():
                failure = Failure(Reason.TIMEOUT, Message("answer_over_deadline"), retry_after=1.0)
            else:
                failure = as_failure(error, request_id=request_id)
        status = status_pb2.Status() if failure is None else failure.to_proto()
        self._send(pb.CallOutput(call=call, status=status.SerializeToString()))

    def _reject_when_draining(self) -> None:
        if self._drain.is_set():
            raise Failure(Reason.DRAINING, Message("worker_draining"), retry_after=1.0)

    def _send(self, output: pb.CallOutput) -> None:
        self._outputs.append(output)
        self._changed.set()
        if output.call in self._awaited:
            self._note_arrival(output.call)
            return
        # The step does not wait for this output: it is a first or last one, or belongs to the next step.
        self._complete.set()
        if output.events and output.call not in self._in_step:
            if self._awaited == self._in_step:
                # No output of the next step has arrived, so that the call is part of that step.
                self._awaited.add(output.call)
            self._in_step.add(output.call)

    def _note_arrival(self, call: int) -> None:
        self._awaited.discard(call)
        if not self._awaited:
            self._complete.set()


def responses_of(outputs: list[pb.CallOutput]) -> Iterator[pb.GenerateManyResponse]:
    """Yield `outputs` in as few messages as possible. A too large output is replaced by an error status."""
    response = pb.GenerateManyResponse(outputs=outputs)
    if response.ByteSize() <= MOST_RESPONSE_BYTES:
        yield response
    elif len(outputs) > 1:
        half = len(outputs) // 2
        yield from responses_of(outputs[:half])
        yield from responses_of(outputs[half:])
    else:
        size = outputs[0].ByteSize()
        failure = Failure(Reason.INTERNAL, Message("answer_part_too_large", value=size, limit=MOST_RESPONSE_BYTES))
        status = failure.to_proto().SerializeToString()
        yield pb.GenerateManyResponse(outputs=[pb.CallOutput(call=outputs[0].call, status=status)])


def _seconds(start: pb.StartCall) -> float | None:
    if not start.HasField("timeout"):
        return None
    seconds = start.timeout.seconds + start.timeout.nanos / 1e9
    if not 0 < seconds <= MOST_SECONDS:
        raise invalid(Message("duration_out_of_range", field="timeout", value=seconds, limit=MOST_SECONDS))
    return seconds
