"""Calls inference workers: the only place in the gateway that speaks gRPC to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.workers import Service, Worker, Workers

MAX_MESSAGE_BYTES: Final = 32 * 2**20
SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
LIST_SECONDS: Final = 5.0
RENDER_SECONDS: Final = 30.0
OPTIONS: Final = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A worker that was started again is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # We decide about retries ourselves: none once a client has seen a token.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True)
class Patience:
    """How long a worker may take."""

    idle_seconds: float
    """Between two signs of life."""
    stream_seconds: float
    """For a whole answer."""


class SilentWorkerError(Exception):
    """A worker gave no sign of life for too long. Its call was cancelled."""


class GenerateCall:
    """One running answer."""

    def __init__(
        self, call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse], *, idle_seconds: float
    ) -> None:
        """Of a call that was just begun, and that is given up after `idle_seconds` without a message."""
        self._call: Final = call
        self._idle_seconds: Final = idle_seconds
        self._loop: Final = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._silent = False
        self._watch: asyncio.TimerHandle = self._loop.call_later(idle_seconds, self._look)
        self._first: asyncio.Task[pb.GenerateResponse | None] = asyncio.create_task(self._read())
        self.started: pb.Started | None = None

    async def start(self, *, seconds: float | None) -> bool:
        """Wait up to `seconds` (None: for ever) for the beginning of the answer; whether it came.

        Raises grpc.aio.AioRpcError, SilentWorkerError, and asyncio.CancelledError after `cancel`.
        """
        done, _ = await asyncio.wait({self._first}, timeout=seconds)
        if not done:
            return False
        response = self._first.result()
        if response is not None:
            self.started = response.events[0].started
        return True

    def __aiter__(self) -> AsyncIterator[list[pb.Event]]:
        """The events, from the first, in the groups in which they came. Raises as `start` does."""
        return self._events()

    async def _events(self) -> AsyncIterator[list[pb.Event]]:
        response = await self._first
        while response is not None:
            yield list(response.events)
            response = await self._read()

    async def _read(self) -> pb.GenerateResponse | None:
        """The next message with events; one without is a sign of life. None at the end."""
        while True:
            self._waiting_since = self._loop.time()
            try:
                response = await self._call.read()
            except asyncio.CancelledError:
                if self._silent:
                    raise SilentWorkerError from None
                raise
            self._waiting_since = None
            if not isinstance(response, pb.GenerateResponse):
                return None
            if response.events:
                return response

    def _look(self) -> None:
        # One timer per call that looks back costs far less than a timeout around each read.
        now = self._loop.time()
        since = self._waiting_since if self._waiting_since is not None else now
        if now - since >= self._idle_seconds:
            self._silent = True
            self._call.cancel()
        else:
            self._watch = self._loop.call_at(since + self._idle_seconds, self._look)

    def cancel(self) -> None:
        """Stop it, in the worker and the engine too. Nothing happens when it has ended."""
        self._watch.cancel()
        self._call.cancel()
        self._first.cancel()


class InferenceClient:
    """A connection to one worker."""

    def __init__(self, channel: grpc.aio.Channel, patience: Patience) -> None:
        """Over an open channel."""
        self._patience: Final = patience
        self._stub: Final = inference_service_pb2_grpc.InferenceServiceStub(channel)

    def generate(self, request: pb.GenerateRequest, *, request_id: str) -> GenerateCall:
        """Begin an answer."""
        metadata = (("x-request-id", request_id),)
        call = self._stub.Generate(request, metadata=metadata, timeout=self._patience.stream_seconds)
        return GenerateCall(call, idle_seconds=self._patience.idle_seconds)

    async def render(self, request: pb.GenerateRequest, *, request_id: str) -> pb.RenderPromptResponse:
        """The prompt of a request. Raises grpc.aio.AioRpcError."""
        metadata = (("x-request-id", request_id),)
        asked = pb.RenderPromptRequest(request=request)
        return await self._stub.RenderPrompt(asked, metadata=metadata, timeout=RENDER_SECONDS)

    async def list_models(self) -> list[pb.Model]:
        """The models of the worker. Raises grpc.aio.AioRpcError."""
        answer = await self._stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(answer.models)


InferenceWorker = Worker[InferenceClient, pb.Model]
InferenceWorkers = Workers[InferenceClient, pb.Model]


def inference_service(patience: Patience) -> Service[InferenceClient]:
    """The workers that answer chats."""
    return Service(SERVICE, "/chat/completions", lambda channel: InferenceClient(channel, patience), OPTIONS)
