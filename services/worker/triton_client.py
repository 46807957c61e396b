"""The client of the models in Triton: of language models, which stream, and of models that answer once.

It speaks Triton's gRPC protocol with the generated stub, because tritonclient's own asyncio wrapper loses the status of
errors, request ids and empty final responses. The requests are defined in the backends of the models: see
`services/inference/triton_backend/contract.py` and `services/embeddings/triton_backend/contract.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.runtime.grpc_channel import channel_options
from services.worker.step_stream import StepStream, StreamEndedError, TokenSink
from services.worker.triton_failures import engine_failed, failure_of_rpc, raise_status, reject_error
from services.worker.triton_messages import (
    MAX_MESSAGE_BYTES,
    EngineOutput,
    Tensor,
    acknowledgement,
    add_prompt,
    cancellation,
    check_size,
    model_request,
    output_of,
    packed,
    string_of,
    tensors_of,
)

READY_SECONDS: Final = 1.0
DESCRIBE_SECONDS: Final = 5.0
WIND_DOWN_SECONDS: Final = 5.0
"""The time that Triton has to end a stream before the call is cancelled."""
WINDOW: Final = 1024
"""The most outputs that may wait for a reader, more than most generations have: see `generate`."""
MOST_STREAMS: Final = 3
"""The most streams of steps on which a request is tried, because a stream may end before the request reaches it."""


class TritonClient:
    """A connection to one Triton server."""

    def __init__(self, target: str) -> None:
        """`target` is HOST:PORT or unix:PATH of its gRPC endpoint. The first call opens the connection."""
        self._target = target
        self._channel: grpc.aio.Channel | None = None
        self._opened: service_pb2_grpc.GRPCInferenceServiceStub | None = None
        self._winding_down: set[asyncio.Task[None]] = set()
        self._step_streams: dict[str, StepStream] = {}
        """The last stream of steps with each model."""
        self._ids = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count())

    async def close(self) -> None:
        """Close the connection and end all calls."""
        closing = [stream.close(seconds=WIND_DOWN_SECONDS) for stream in self._step_streams.values()]
        await asyncio.gather(*self._winding_down, *closing)
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
            await call.write(model_request(model, next(self._ids), {"describe": True}))
            await call.done_writing()
            async for response in call:
                reject_error(response, model)
                tensors = tensors_of(response.infer_response)
                if "description" in tensors:
                    description = dict(json.loads(string_of(tensors["description"])))
        except grpc.aio.AioRpcError as error:
            raise failure_of_rpc(error, model) from error
        except asyncio.InvalidStateError:
            await raise_status(call, model)
        if description is None:
            raise engine_failed("it did not describe itself")
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
            request.raw_input_contents.append(packed(rows))
        check_size(request)
        try:
            answer = await self._stub.ModelInfer(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise failure_of_rpc(error, model) from error
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
        request = model_request(model, unique_id, {**params, "window": window})
        add_prompt(request, prompt_token_ids, text_input, images)
        check_size(request)
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
                reject_error(response, model)
                output = output_of(answer)
                ended = output.finish_reason is not None
                yield output
                if ended:
                    return
                received += 1
                if received % acknowledge_every == 0:
                    message = acknowledgement(model, next(self._ids), unique_id, received)
                    writing = asyncio.ensure_future(call.write(message))
                    await asyncio.shield(writing)
            ended = True
        except grpc.aio.AioRpcError as error:
            ended = True
            raise failure_of_rpc(error, model) from error
        except asyncio.InvalidStateError:
            # The call ended before this write.
            ended = True
            await raise_status(call, model)
        finally:
            last = None if ended else cancellation(model, next(self._ids), unique_id)
            self._keep(asyncio.create_task(_wind_down(call, writing, reading, last)))
        raise engine_failed("it broke off its answer")

    async def generate_in_steps(
        self,
        model: str,
        *,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: Mapping[str, Any],
        images: Sequence[bytes] = (),
        text_input: str | None = None,
        window: int = WINDOW,
        sink: TokenSink | None = None,
    ) -> AsyncGenerator[EngineOutput, None]:
        """Generate as `generate` does, in the one stream of steps that this client has with `model`.

        It costs a fraction of `generate`, for models that support the parameter `step`. Tokens that arrive while the
        reader waits are offered to `sink` first, and are not yielded if it takes them.
        """

        def message(step: Mapping[str, Any]) -> Any:
            request = model_request(model, f"{request_id}.{next(self._ids)}", {**params, **step})
            add_prompt(request, prompt_token_ids, text_input, images)
            check_size(request)
            return request

        for _ in range(MOST_STREAMS):
            request = self._steps(model).begin(message, window=window, sink=sink)
            try:
                while True:
                    output = await request.read()
                    yield output
                    if output.finish_reason is not None:
                        return
            except StreamEndedError:
                # The stream was idle, and ended while the request was on its way.
                continue
            finally:
                request.cancel()
        raise engine_failed("it ends every stream")

    def _steps(self, model: str) -> StepStream:
        stream = self._step_streams.get(model)
        if stream is None or not stream.is_open:
            stream = self._step_streams[model] = StepStream(
                self._stub.ModelStreamInfer(), model, lambda: next(self._ids)
            )
        return stream

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._winding_down.add(task)
        task.add_done_callback(self._winding_down.discard)

    @property
    def _stub(self) -> service_pb2_grpc.GRPCInferenceServiceStub:
        if self._opened is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=channel_options(MAX_MESSAGE_BYTES))
            self._opened = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._opened


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
