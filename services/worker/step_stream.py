"""The reader's end of a stream of steps: one stream of Triton has the output of many requests.

`services/inference/triton_backend/contract.py` describes its messages, and `step_stream.py` beside it is the other end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import grpc
import numpy as np

from services.runtime.failure import Failure
from services.runtime.lasting_task import lasting_task
from services.worker.triton_failures import engine_failed, failure_of, failure_of_rpc, raise_status, reject_error
from services.worker.triton_messages import EngineOutput, cancellation, model_request, strings_of, tensors_of

_ENDED: Final = "STREAM_ENDED"
_NOTES: Final = {"step_begins", "step_ends", "logprobs"}
"""Tensors that most responses do not have."""


class StreamEndedError(Exception):
    """The stream had ended when the request reached it. The request can be repeated on a new stream."""


class TokenSink(Protocol):
    """Takes tokens when they arrive, without waking the task that reads the request, which would cost more."""

    def take(self, token_ids: list[int]) -> bool:
        """Take tokens and return True, or leave them to the reader and return False. It must not wait."""
        ...


class StepRequest:
    """One running request of a stream."""

    def __init__(self, stream: StepStream, number: int, *, window: int, sink: TokenSink | None) -> None:
        """Begin the request `number`. Tokens that arrive while its reader waits are offered to `sink` first."""
        self._stream: Final = stream
        self._number: Final = number
        self._sink: Final = sink
        self._inbox: Final[deque[EngineOutput]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._acknowledge_every: Final = max(1, window // 2)
        self._read = 0
        self._acknowledge_at = self._acknowledge_every
        self._is_ended = False

    async def read(self) -> EngineOutput:
        """Return the next output that the sink has not taken; the last one has the finish reason.

        Raises the Failure that ended the request, and StreamEndedError.
        """
        while not self._inbox:
            if self._error is not None:
                raise self._error
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        output = self._inbox.popleft()
        self._acknowledge()
        return output

    def receive_tokens(self, token_ids: list[int]) -> None:
        """Handle tokens without log probabilities."""
        # A reader that was woken but has not run yet must read first, to keep the order.
        if self._sink is not None and self._reader is not None and not self._inbox and token_ids:
            try:
                is_taken = self._sink.take(token_ids)
            except Exception as error:  # noqa: BLE001  # an error of this request must not end the others
                self.cancel()
                self.fail(error)
                return
            if is_taken:
                self._acknowledge()
                return
        self.receive(EngineOutput(token_ids, None, None, None, None, None))

    def receive(self, output: EngineOutput) -> None:
        """Handle any output."""
        self._inbox.append(output)
        if output.finish_reason is not None:
            self._end()
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the request with an error, once the received outputs are read."""
        if self._error is None:
            self._error = error
            self._end()
            self._wake()

    def cancel(self) -> None:
        """Cancel the request if it still runs."""
        if not self._is_ended:
            self._stream.cancel(self._number)
            self._end()

    def _end(self) -> None:
        self._is_ended = True
        self._stream.forget(self._number)

    def _acknowledge(self) -> None:
        self._read += 1
        if self._read >= self._acknowledge_at and not self._is_ended:
            self._acknowledge_at += self._acknowledge_every
            self._stream.acknowledge(self._number, self._read)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class StepStream:
    """One stream, from its opening to its end."""

    def __init__(self, call: Any, model: str, new_id: Callable[[], str]) -> None:
        """Open the stream of `model` on `call`, a new ModelStreamInfer. `new_id` makes ids unique in Triton."""
        self.name: Final = new_id()
        self._call: Final = call
        self._model: Final = model
        self._new_id: Final = new_id
        self._requests: Final[dict[int, StepRequest]] = {}
        self._numbers = 0
        self._unanswered: Final[dict[str, int]] = {}
        """The numbers of requests that Triton has neither accepted nor rejected, by the id of the request."""
        self._unsent: Final[OrderedDict[int, Any]] = OrderedDict()
        """Requests by number, and other messages by negative numbers."""
        self._others: Final = itertools.count(-1, -1)
        self._acknowledged: Final[dict[int, int]] = {}
        self._cancelled: Final[list[int]] = []
        self._filled: Final = asyncio.Event()
        self._is_closing = False
        self._is_stopping = False
        """Triton has rejected a control message."""
        self._put(next(self._others), _with_empty_final(model_request(model, self.name, {"open_steps": True})))
        self._reading: Final = lasting_task(self._read())
        self._writing: Final = lasting_task(self._write())

    @property
    def is_open(self) -> bool:
        """Whether new requests can begin."""
        return not self._is_closing

    def begin(
        self, make: Callable[[Mapping[str, Any]], Any], *, window: int, sink: TokenSink | None = None
    ) -> StepRequest:
        """Begin a request. `make` returns its message for the parameters that say where its output goes."""
        self._numbers += 1
        number = self._numbers
        message = _with_empty_final(make({"step": {"stream": self.name, "request": number}, "window": window}))
        request = self._requests[number] = StepRequest(self, number, window=window, sink=sink)
        self._unanswered[message.id] = number
        self._put(number, message)
        return request

    def acknowledge(self, number: int, responses: int) -> None:
        """Report that `responses` entries of a request were read."""
        self._acknowledged[number] = responses
        self._filled.set()

    def cancel(self, number: int) -> None:
        """Cancel a request in the engine, or remove it from the messages that were not sent yet."""
        message = self._unsent.pop(number, None)
        if message is None:
            self._cancelled.append(number)
            self._filled.set()
        else:
            self._unanswered.pop(message.id, None)

    def forget(self, number: int) -> None:
        """Remove a request that has ended."""
        self._requests.pop(number, None)
        self._acknowledged.pop(number, None)
        if self._is_stopping:
            self._cancel_if_unused()

    async def close(self, *, seconds: float) -> None:
        """Cancel all requests, and end the stream. The gRPC call is cancelled if Triton is silent for `seconds`."""
        self._is_closing = True
        if not self._reading.done():
            self._put(next(self._others), cancellation(self._model, self._new_id(), self.name))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait([self._reading, self._writing])
        except TimeoutError:
            self._call.cancel()
        for task in (self._reading, self._writing):
            task.cancel()
        await asyncio.gather(self._reading, self._writing, return_exceptions=True)

    def _cancel_if_unused(self) -> None:
        """Cancel the call: cancelled requests, of which a Triton that stops was not told, would run on."""
        if not self._requests:
            self._is_closing = True
            self._call.cancel()

    def _put(self, number: int, message: Any) -> None:
        self._unsent[number] = message
        self._filled.set()

    async def _write(self) -> None:
        try:
            while True:
                while (message := self._next_message()) is None:
                    if self._is_closing:
                        await self._call.done_writing()
                        return
                    self._filled.clear()
                    await self._filled.wait()
                await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            # `_read` gets the error of the call.
            self._is_closing = True

    def _next_message(self) -> Any | None:
        if self._unsent:
            return self._unsent.popitem(last=False)[1]
        if self._cancelled:
            numbers, self._cancelled[:] = list(self._cancelled), []
            return self._control({"cancel": {"stream": self.name, "requests": numbers}})
        if self._acknowledged:
            responses = {str(number): count for number, count in self._acknowledged.items()}
            self._acknowledged.clear()
            return self._control({"acknowledge": {"stream": self.name, "responses": responses}})
        return None

    def _control(self, params: Mapping[str, Any]) -> Any:
        return model_request(self._model, self._new_id(), params)

    async def _read(self) -> None:
        failure: Exception = engine_failed("it broke off its answer")
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                try:
                    self._handle(response)
                except Failure as error:
                    # The stream itself has failed, and with it all of its requests.
                    failure = error
                    break
        except grpc.aio.AioRpcError as error:
            failure = failure_of_rpc(error, self._model)
        except asyncio.InvalidStateError:
            try:
                await raise_status(self._call, self._model)
            except Failure as error:
                failure = error
        finally:
            self._is_closing = True
            self._filled.set()
            for request in list(self._requests.values()):
                request.fail(failure)

    def _handle(self, response: Any) -> None:
        """Handle one response. Raises Failure for an error of the stream."""
        answer = response.infer_response
        if answer.id == self.name:
            reject_error(response, self._model)
            if answer.outputs:
                self._dispatch(answer)
            else:
                # The last response: the stream was idle.
                self._is_closing = True
                self._filled.set()
        elif answer.id in self._unanswered:
            number = self._unanswered.pop(answer.id)
            if response.error_message and (request := self._requests.get(number)) is not None:
                request.fail(self._rejection(response))
        elif response.error_message:
            # A Triton that stops finishes running requests, but rejects acknowledgements and cancellations as new ones.
            self._is_stopping = True
            self._cancel_if_unused()

    def _rejection(self, response: Any) -> Exception:
        if response.error_message.startswith(_ENDED):
            self._is_closing = True
            self._filled.set()
            return StreamEndedError()
        try:
            reject_error(response, self._model)
        except Failure as failure:
            return failure
        raise AssertionError

    def _dispatch(self, answer: Any) -> None:
        """Hand the entries of a step to their requests."""
        tensors = tensors_of(answer)
        numbers: list[int] = memoryview(tensors["step_requests"]).cast("i").tolist()
        counts: list[int] = memoryview(tensors["step_counts"]).cast("i").tolist()
        token_ids: list[int] = memoryview(tensors["token_ids"]).cast("i").tolist()
        requests, begin = self._requests, 0
        if not _NOTES & tensors.keys():
            for number, count in zip(numbers, counts, strict=True):
                end = begin + count
                # Entries of a cancelled request may be on their way.
                if (request := requests.get(number)) is not None:
                    request.receive_tokens(token_ids[begin:end])
                begin = end
            return
        ends = _by_request(tensors.get("step_ends", b""))
        cached = {
            number: note["cached_tokens"] for number, note in _by_request(tensors.get("step_begins", b"")).items()
        }
        last = {number: position for position, number in enumerate(numbers) if number in ends}
        logprobs = _Logprobs(tensors) if "logprobs" in tensors else None
        for position, (number, count) in enumerate(zip(numbers, counts, strict=True)):
            end, ids = begin + count, token_ids[begin : begin + count]
            if (request := requests.get(number)) is not None:
                ending = ends[number] if last.get(number) == position else None
                values = None if logprobs is None else logprobs.of(begin, end)
                self._hand_over(request, ids, values, ending, cached_tokens=cached.pop(number, None) if ids else None)
            begin = end

    def _hand_over(
        self,
        request: StepRequest,
        ids: list[int],
        values: _Values | None,
        ending: Mapping[str, Any] | None,
        *,
        cached_tokens: int | None,
    ) -> None:
        if ending is None and values is None and cached_tokens is None:
            request.receive_tokens(ids)
        elif ending is not None and "error" in ending:
            if ids:
                request.receive(_output(ids, values, {}, cached_tokens))
            request.fail(self._failure_in(ending["error"]))
        else:
            request.receive(_output(ids, values, ending or {}, cached_tokens))

    def _failure_in(self, text: str) -> Failure:
        return failure_of(grpc.StatusCode.INTERNAL, text, self._model)


def _with_empty_final(message: Any) -> Any:
    """Have Triton send final responses without outputs, which it otherwise keeps, and return the request."""
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    return message


_Values = tuple[list[float], list[list[int]] | None, list[list[float]] | None]


def _output(
    token_ids: list[int], values: _Values | None, ending: Mapping[str, Any], cached_tokens: int | None
) -> EngineOutput:
    own, top_ids, top = values or (None, None, None)
    return EngineOutput(
        token_ids,
        own,
        top_ids,
        top,
        ending.get("finish_reason"),
        ending.get("usage"),
        cached_tokens=cached_tokens,
    )


def _by_request(raw: bytes) -> dict[int, dict[str, Any]]:
    """Return the notes in a tensor of JSON objects, by the number of their request."""
    return {note["request"]: note for note in map(json.loads, strings_of(raw))}


class _Logprobs:
    """The log probabilities in one response."""

    def __init__(self, tensors: Mapping[str, bytes]) -> None:
        self._own: Final[list[float]] = np.frombuffer(tensors["logprobs"], "<f4").tolist()
        self._counts: Final[list[int]] = np.frombuffer(tensors["step_top_counts"], "<i4").tolist()
        self._ids: Final[list[int]] = np.frombuffer(tensors["step_top_token_ids"], "<i4").tolist()
        self._values: Final[list[float]] = np.frombuffer(tensors["step_top_logprobs"], "<f4").tolist()
        self._offsets: Final = np.concatenate(([0], np.cumsum(np.maximum(self._counts, 0)))).tolist()

    def of(self, begin: int, end: int) -> _Values | None:
        """Return the fields of EngineOutput about tokens `begin` to `end`; None if their request wants none."""
        own = self._own[begin:end]
        if not own or math.isnan(own[0]):
            return None
        if self._counts[begin] < 0:
            return own, None, None
        spans = [(self._offsets[index], self._offsets[index] + self._counts[index]) for index in range(begin, end)]
        return own, [self._ids[a:b] for a, b in spans], [self._values[a:b] for a, b in spans]
