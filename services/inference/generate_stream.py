"""Many calls in one stream: what is ready for any of them is sent in one message.

A stream per call, with messages of its own, costs both ends several times as much processor time per token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final

from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason, invalid
from services.worker.grpc_server import MAX_MESSAGE_BYTES, as_failure, as_request_id

GATHER_SECONDS: Final = 0.006
"""How long the first output of a step waits, at most, for those of the other calls that are in it."""

MOST_RESPONSE_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024
"""A larger message would end the stream, and with it all calls."""
MOST_CREDIT: Final = 1024
MOST_SECONDS: Final = 86_400.0

Answer = Callable[[pb.GenerateRequest, str], AsyncGenerator[list[pb.Event], None]]
"""Answers a request, which has an id: lists of events; an empty one is a sign of life. Raises Failure."""


class GenerateStream:
    """One stream. `responses` is used once."""

    def __init__(self, answer: Answer, drain: asyncio.Event) -> None:
        """Once `drain` is set, no further call is taken, and the stream ends with the last one."""
        self._answer: Final = answer
        self._drain: Final = drain
        self._tasks: Final[dict[int, asyncio.Task[None]]] = {}
        self._credits: Final[dict[int, asyncio.Semaphore]] = {}
        self._last_call = 0
        self._outputs: list[pb.CallOutput] = []
        self._changed: Final = asyncio.Event()
        self._in_step: Final[set[int]] = set()
        """The calls that had an output in the engine's last step, and so will have one in the next."""
        self._awaited: Final[set[int]] = set()
        """Those of them that have not had it yet."""
        self._complete: Final = asyncio.Event()

    async def responses(
        self, requests: AsyncIterator[pb.GenerateManyRequest]
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        """What is to be sent for what the caller says. Leaving it ends all calls. Raises Failure."""
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
        """Wait until the engine's step is there for all calls that are in it, but not for long."""
        if not self._complete.is_set():
            timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._wait_no_longer)
            await self._complete.wait()
            timer.cancel()

    def _wait_no_longer(self) -> None:
        # They pause. What they have next is a beginning again.
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
            message = f"call is {call}; it must be greater than {self._last_call}, which was the last one"
            raise invalid("call", message, value=call, limit=self._last_call + 1)
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
            async with limit, contextlib.aclosing(self._answer(start.request, request_id)) as answer:
                async for events in answer:
                    if events:
                        await credit.acquire()
                    self._send(pb.CallOutput(call=call, events=events))
        except Exception as error:  # noqa: BLE001  # whatever it was, it ends this call, and with a status
            if limit.expired():
                failure = Failure(Reason.TIMEOUT, "the answer took longer than its caller allowed", retry_after=1.0)
            else:
                failure = as_failure(error, request_id=request_id)
        status = status_pb2.Status() if failure is None else failure.to_proto()
        self._send(pb.CallOutput(call=call, status=status.SerializeToString()))

    def _reject_when_draining(self) -> None:
        if self._drain.is_set():
            raise Failure(Reason.DRAINING, "this worker is about to stop; ask another one", retry_after=1.0)

    def _send(self, output: pb.CallOutput) -> None:
        self._outputs.append(output)
        self._changed.set()
        if output.call in self._awaited:
            self._note_arrival(output.call)
            return
        # The beginning of an answer, its end, or the next step already: it waits for nobody.
        self._complete.set()
        if output.events and output.call not in self._in_step:
            if self._awaited == self._in_step:
                # The next step has not begun.
                self._awaited.add(output.call)
            self._in_step.add(output.call)

    def _note_arrival(self, call: int) -> None:
        self._awaited.discard(call)
        if not self._awaited:
            self._complete.set()


def responses_of(outputs: list[pb.CallOutput]) -> Iterator[pb.GenerateManyResponse]:
    """Outputs in as few messages as may be sent. An output that is too large by itself becomes the end of its call."""
    response = pb.GenerateManyResponse(outputs=outputs)
    if response.ByteSize() <= MOST_RESPONSE_BYTES:
        yield response
    elif len(outputs) > 1:
        half = len(outputs) // 2
        yield from responses_of(outputs[:half])
        yield from responses_of(outputs[half:])
    else:
        size = outputs[0].ByteSize()
        failure = Failure(
            Reason.INTERNAL, f"a part of the answer has {size} bytes; at most {MOST_RESPONSE_BYTES} can be sent"
        )
        status = failure.to_proto().SerializeToString()
        yield pb.GenerateManyResponse(outputs=[pb.CallOutput(call=outputs[0].call, status=status)])


def _seconds(start: pb.StartCall) -> float | None:
    if not start.HasField("timeout"):
        return None
    seconds = start.timeout.seconds + start.timeout.nanos / 1e9
    if not 0 < seconds <= MOST_SECONDS:
        message = f"timeout is {seconds:g} s; it must be more than 0 s, and at most {MOST_SECONDS:g} s"
        raise invalid("timeout", message, value=f"{seconds:g}", limit=f"{MOST_SECONDS:g}")
    return seconds
