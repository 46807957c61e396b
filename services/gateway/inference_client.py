"""Calls inference workers: the only place in the gateway that speaks gRPC to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

MAX_MESSAGE_BYTES: Final = 32 * 2**20
LIST_SECONDS: Final = 5.0
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


class GenerateCall:
    """One running answer."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]) -> None:
        """Of a call that was just begun."""
        self._call: Final = call
        self._first: asyncio.Task[pb.GenerateResponse | None] = asyncio.create_task(self._read())
        self.started: pb.Started | None = None

    async def start(self, *, seconds: float | None) -> bool:
        """Wait up to `seconds` (None: for ever) for the beginning of the answer; whether it came.

        Raises grpc.aio.AioRpcError, and asyncio.CancelledError after `cancel`.
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
        response = await self._call.read()
        return response if isinstance(response, pb.GenerateResponse) else None

    def cancel(self) -> None:
        """Stop it, in the worker and the engine too. Nothing happens when it has ended."""
        self._call.cancel()
        self._first.cancel()


class InferenceClient:
    """A connection to one worker."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Over an open channel."""
        self._stub: Final = inference_service_pb2_grpc.InferenceServiceStub(channel)

    def generate(self, request: pb.GenerateRequest, *, request_id: str) -> GenerateCall:
        """Begin an answer."""
        return GenerateCall(self._stub.Generate(request, metadata=(("x-request-id", request_id),)))

    async def list_models(self) -> list[pb.Model]:
        """The models of the worker. Raises grpc.aio.AioRpcError."""
        answer = await self._stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(answer.models)
