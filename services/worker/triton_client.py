"""The client of the models in Triton: of language models, which stream, and of models that answer once.

It speaks Triton's gRPC protocol with the generated stub, because tritonclient's own asyncio wrapper loses the status of
errors, request ids and empty final responses. The requests are defined in the backends of the models: see
`services/inference/triton_backend/contract.py` and `services/embeddings/triton_backend/contract.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.grpc_channel import channel_options
from services.runtime.messages.message import Message

MAX_MESSAGE_BYTES: Final = 32 * 2**20
READY_SECONDS: Final = 1.0
DESCRIBE_SECONDS: Final = 5.0
MOST_CHARACTERS: Final = 500
"""The longest text of an engine in a failure, because a gRPC status is sent as a header."""

_DEAD_PROCESS: Final = re.compile(r"[Ss]tub process .*is not healthy")
WIND_DOWN_SECONDS: Final = 5.0
"""The time that Triton has to end a stream before the call is cancelled."""
WINDOW: Final = 1024
"""The most outputs that may wait for a reader, more than most generations have: see `generate`."""


class DeadModelError(Failure):
    """The model's own process has died. Triton itself lives on, and does not restart the process."""

    def __init__(self, model: str) -> None:
        """`model` is the model's id."""
        message = Message("model_process_died", model=model)
        super().__init__(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0)


@dataclass(slots=True, frozen=True)
class Tensor:
    """A tensor as Triton sends it."""

    shape: tuple[int, ...]
    raw: bytes
    """Little-endian numbers, or byte strings, each after its length in four bytes."""

    def string(self) -> str:
        """Return the text of a tensor that holds one string."""
        return _string(self.raw)


@dataclass(slots=True, frozen=True)
class EngineOutput:
    """The tokens that the engine has generated since the previous output. Lists have one entry per token id."""

    token_ids: list[int]
    logprobs: list[float] | None
    """Natural logarithms of the tokens' probabilities, if the request asked for them."""
    top_token_ids: list[list[int]] | None
    """For each token, the most probable ones, best first, if the request asked for them."""
    top_logprobs: list[list[float]] | None
    """Aligned with `top_token_ids`."""
    finish_reason: str | None
    """`stop`, `length` or `cancelled`, in the last output."""
    usage: dict[str, Any] | None
    """prompt_tokens, completion_tokens, cached_tokens and timings (in seconds), in the last output."""
    left_out: int = 0
    """The number of further generated tokens, which are not in the lists because they are not part of the text."""


class TritonClient:
    """A connection to one Triton server."""

    def __init__(self, target: str) -> None:
        """`target` is HOST:PORT or unix:PATH of its gRPC endpoint. The first call opens the connection."""
        self._target = target
        self._channel: grpc.aio.Channel | None = None
        self._opened: service_pb2_grpc.GRPCInferenceServiceStub | None = None
        self._winding_down: set[asyncio.Task[None]] = set()
        self._ids = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count())

    async def close(self) -> None:
        """Close the connection and end all calls."""
        await asyncio.gather(*self._winding_down)
        if self._channel is not None:
            await self._channel.close()

    async def is_live(self) -> bool:
        """Return whether Triton answers within a second, whatever its models do. Never raises."""
        try:
            await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=READY_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def is_ready(self, model: str) -> bool:
        """Return whether Triton answers within a second that `model` is ready. Never raises."""
        try:
            answer = await self._stub.ModelReady(service_pb2.ModelReadyRequest(name=model), timeout=READY_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def describe(self, model: str, *, seconds: float = DESCRIBE_SECONDS) -> dict[str, Any]:
        """Return the description of `model`, with its load.

        The keys are engine, version, supported_parameters, context_length, slots, load. Raises Failure: TIMEOUT after
        `seconds`, DeadModelError when the model's process has died.
        """
        description: dict[str, Any] | None = None
        call = self._stub.ModelStreamInfer(timeout=seconds)
        try:
            await call.write(_request(model, next(self._ids), {"describe": True}))
            await call.done_writing()
            async for response in call:
                _reject_error(response, model)
                tensors = _tensors(response.infer_response)
                if "description" in tensors:
                    description = dict(json.loads(_string(tensors["description"])))
        except grpc.aio.AioRpcError as error:
            raise _failure(error, model) from error
        except asyncio.InvalidStateError:
            await _raise_status(call, model)
        if description is None:
            raise _engine_failed("it did not describe itself")
        return description

    async def infer(
        self, model: str, columns: Mapping[str, Sequence[bytes]], *, request_id: str, seconds: float | None
    ) -> dict[str, Tensor]:
        """Ask a model that answers once, and return its outputs by name.

        `columns` are its inputs by name, with a byte string for each row of the batch. Raises Failure: the engine's own
        errors, TIMEOUT after `seconds`, MODEL_UNAVAILABLE when Triton cannot be reached.
        """
        request = service_pb2.ModelInferRequest(model_name=model, id=f"{request_id}.{next(self._ids)}")
        for name, rows in columns.items():
            request.inputs.add(name=name, datatype="BYTES", shape=[len(rows), 1])
            request.raw_input_contents.append(_packed(rows))
        _check_size(request)
        try:
            answer = await self._stub.ModelInfer(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, model) from error
        return {
            tensor.name: Tensor(tuple(tensor.shape), raw)
            for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    async def generate(
        self,
        model: str,
        *,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: Mapping[str, Any],
        images: Sequence[bytes] = (),
        text_input: str | None = None,
        window: int = WINDOW,
    ) -> AsyncGenerator[EngineOutput, None]:
        """Generate, and yield the engine's outputs as they come; the last one has the finish reason.

        `text_input` replaces `prompt_token_ids`, which is empty then. The engine pauses while more than `window`
        outputs have not been taken from the generator. To close the generator, or to cancel the task that waits in it,
        cancels the request. Raises Failure: the engine's own errors, MODEL_UNAVAILABLE when Triton cannot be reached or
        ends the stream early.
        """
        # Ids must be unique among all clients of a Triton; the caller's part makes its logs readable.
        unique_id = f"{request_id}.{next(self._ids)}"
        request = _request(model, unique_id, {**params, "window": window})
        _add_prompt(request, prompt_token_ids, text_input, images)
        _check_size(request)
        call = self._stub.ModelStreamInfer()
        acknowledge_every = max(1, window // 2)
        received = 0
        ended = False
        # All reads and writes are shielded, because cancelling one would cancel the gRPC call.
        writing = asyncio.ensure_future(call.write(request))
        reading: asyncio.Future[Any] | None = None
        try:
            await asyncio.shield(writing)
            while True:
                reading = asyncio.ensure_future(call.read())
                response = await asyncio.shield(reading)
                if response is grpc.aio.EOF:
                    break
                answer = response.infer_response
                # A Triton that is about to stop finishes running requests, but rejects acknowledgements as new
                # requests.
                if answer.id not in (unique_id, ""):
                    continue
                ended = bool(response.error_message)
                _reject_error(response, model)
                output = _output(answer)
                ended = output.finish_reason is not None
                yield output
                if ended:
                    return
                received += 1
                if received % acknowledge_every == 0:
                    acknowledgement = _acknowledgement(model, next(self._ids), unique_id, received)
                    writing = asyncio.ensure_future(call.write(acknowledgement))
                    await asyncio.shield(writing)
            ended = True
        except grpc.aio.AioRpcError as error:
            ended = True
            raise _failure(error, model) from error
        except asyncio.InvalidStateError:
            # The call ended before this write.
            ended = True
            await _raise_status(call, model)
        finally:
            last = None if ended else _cancellation(model, next(self._ids), unique_id)
            self._keep(asyncio.create_task(_wind_down(call, writing, reading, last)))
        raise _engine_failed("it broke off its answer")

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._winding_down.add(task)
        task.add_done_callback(self._winding_down.discard)

    @property
    def _stub(self) -> service_pb2_grpc.GRPCInferenceServiceStub:
        if self._opened is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=channel_options(MAX_MESSAGE_BYTES))
            self._opened = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._opened


def _request(model: str, request_id: str, params: Mapping[str, Any]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    _add_input(request, "params", "BYTES", 1, _packed([json.dumps(params).encode()]))
    return request


def _acknowledgement(model: str, own_id: str, request_id: str, responses: int) -> Any:
    return _request(model, own_id, {"acknowledge": {"request_id": request_id, "responses": responses}})


def _cancellation(model: str, own_id: str, request_id: str) -> Any:
    return _request(model, own_id, {"cancel": {"request_id": request_id}})


async def _wind_down(
    call: Any, writing: asyncio.Future[Any], reading: asyncio.Future[Any] | None, last: Any | None
) -> None:
    """Finish the current write, send the `last` request, if there is one, and let Triton end the stream.

    The gRPC call is cancelled only if Triton stays silent: in this Triton, that can crash the whole server (see
    contract.py).
    """
    try:
        async with asyncio.timeout(WIND_DOWN_SECONDS):
            await writing
            if last is not None:
                await call.write(last)
            await call.done_writing()
            response = await reading if reading is not None else None
            while response is not grpc.aio.EOF:
                response = await call.read()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
        pass
    except TimeoutError:
        call.cancel()


def _check_size(request: Any) -> None:
    """Raise Failure for a request that is larger than MAX_MESSAGE_BYTES."""
    size = request.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise invalid(Message("request_too_large_for_model", value=size, limit=MAX_MESSAGE_BYTES))


def _add_prompt(request: Any, prompt_token_ids: Sequence[int], text_input: str | None, images: Sequence[bytes]) -> None:
    if text_input is None:
        ids = np.asarray(prompt_token_ids, "<i4")
        _add_input(request, "prompt_token_ids", "INT32", len(ids), ids.tobytes())
    else:
        _add_input(request, "text_input", "BYTES", 1, _packed([text_input.encode()]))
    if images:
        _add_input(request, "images", "BYTES", len(images), _packed(images))


def _add_input(request: Any, name: str, datatype: str, count: int, raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[count])
    request.raw_input_contents.append(raw)


def _packed(strings: Sequence[bytes]) -> bytes:
    """Return strings in Triton's form: each after its length in four bytes."""
    return b"".join(len(s).to_bytes(4, "little") + s for s in strings)


def _output(answer: Any) -> EngineOutput:
    tensors = _tensors(answer)
    token_ids = tensors.get("token_ids")
    logprobs = tensors.get("logprobs")
    usage = tensors.get("usage")
    reason = tensors.get("finish_reason")
    top_ids, top_logprobs = None, None
    if "top_token_ids" in tensors:
        top_ids, top_logprobs = _top(answer, tensors)
    return EngineOutput(
        token_ids=[] if token_ids is None else memoryview(token_ids).cast("i").tolist(),
        logprobs=None if logprobs is None else np.frombuffer(logprobs, "<f4").tolist(),
        top_token_ids=top_ids,
        top_logprobs=top_logprobs,
        finish_reason=None if reason is None else _string(reason),
        usage=None if usage is None else json.loads(_string(usage)),
    )


def _tensors(answer: Any) -> dict[str, bytes]:
    return {tensor.name: raw for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}


def _string(raw: bytes) -> str:
    return raw[4:].decode()


def _top(answer: Any, tensors: Mapping[str, bytes]) -> tuple[list[list[int]], list[list[float]]]:
    shape = next(list(tensor.shape) for tensor in answer.outputs if tensor.name == "top_token_ids")
    ids = np.frombuffer(tensors["top_token_ids"], "<i4").reshape(shape).tolist()
    values = np.frombuffer(tensors["top_logprobs"], "<f4").reshape(shape).tolist()
    # A row with fewer tokens than the request asked for is filled up with the id -1.
    counts = [sum(token_id >= 0 for token_id in row) for row in ids]
    return (
        [row[:count] for row, count in zip(ids, counts, strict=True)],
        [row[:count] for row, count in zip(values, counts, strict=True)],
    )


def _reject_error(response: Any, model: str) -> None:
    """Raise Failure for a response that is an error: the engine's, as `REASON: text`, or Triton's own."""
    if response.error_message:
        unknown = response.error_message.startswith("Request for unknown model")
        code = grpc.StatusCode.NOT_FOUND if unknown else grpc.StatusCode.INTERNAL
        raise _failure_of(code, response.error_message, model)


async def _raise_status(call: Any, model: str) -> None:
    code = await call.code()
    raise _failure_of(code, await call.details(), model)


def _failure(error: grpc.aio.AioRpcError, model: str) -> Failure:
    return _failure_of(error.code(), error.details() or "", model)


def _failure_of(code: grpc.StatusCode, details: str, model: str) -> Failure:
    if _DEAD_PROCESS.search(details):
        return DeadModelError(model)
    reason, separator, message = details.partition(": ")
    if separator and reason in Reason.__members__:
        return Failure(Reason(reason), _message(message), retry_after=1.0 if reason == Reason.OVERLOADED else None)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
        return Failure(Reason.MODEL_UNAVAILABLE, Message("model_unavailable", model=model), retry_after=1.0)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Reason.TIMEOUT, Message("model_timed_out", model=model), retry_after=1.0)
    return _engine_failed(details)


def _message(text: str) -> Message:
    """Return the message that a RequestError has written; one that cannot be read stays as it is."""
    try:
        content = json.loads(text)
        parameters = {name: str(value)[:MOST_CHARACTERS] for name, value in content["parameters"].items()}
        return Message.received(content["message_id"], parameters, text=text)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Message.verbatim(text[:MOST_CHARACTERS])


def _engine_failed(problem: str) -> Failure:
    return Failure(Reason.ENGINE_FAILED, Message("engine_failed", reason=problem[:MOST_CHARACTERS]))
