"""An answer that a worker is giving: opened on one worker, and ended exactly once, however it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from fastapi import Request
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.chat_request import ChatRequest
from services.gateway.errors import ApiError, from_rpc, server_error
from services.gateway.hang_up import ClientGoneError, HangUp
from services.gateway.inference_client import GenerateCall
from services.gateway.workers import Worker, Workers


class Answer:
    """An open answer. `events` may be read once; `close` must be called."""

    def __init__(
        self, request: Request, chat: ChatRequest, worker: Worker, call: GenerateCall, hang_up: HangUp
    ) -> None:
        """Of a call that was begun on `worker`."""
        self.id: Final = f"chatcmpl-{secrets.token_hex(12)}"
        self.chat: Final = chat
        self.created: Final = int(time.time())
        self._request_id: Final[str] = request.state.request_id
        self._log: Final[dict[str, Any]] = request.state.log
        self._worker: Final = worker
        self._call: Final = call
        self._hang_up: Final = hang_up
        self._began: Final = time.perf_counter()
        self._produced = 0
        self._log["outcome"] = "cancelled"
        worker.in_flight += 1

    @property
    def ignored_parameters(self) -> list[str]:
        """Fields of the request that had no influence."""
        started = self._call.started
        return [*self.chat.ignored, *(started.ignored_parameters if started else ())]

    async def begin(self, *, seconds: float | None) -> bool:
        """Wait for the beginning, up to `seconds`; whether it came. Raises AioRpcError, ClientGoneError."""
        try:
            began = await self._call.start(seconds=seconds)
        except asyncio.CancelledError:
            raise self._gone() from None
        if began:
            self._log["first_token_ms"] = round((time.perf_counter() - self._began) * 1000, 1)
        return began

    async def events(self) -> AsyncIterator[list[pb.Event]]:
        """The events, as they come.

        Raises ApiError when the answer breaks off, ClientGoneError when nobody waits for it any more.
        """
        complete = False
        try:
            async for events in self._call:
                self._produced += sum(event.delta.token_count for event in events)
                if events[-1].HasField("usage"):
                    complete = True
                    self._complete(events[-1].usage)
                yield events
        except asyncio.CancelledError:
            raise self._gone() from None
        except grpc.aio.AioRpcError as error:
            self._log["outcome"] = f"broken off: {error.code().name}"
            raise from_rpc(error, request_id=self._request_id) from error
        if not complete:
            # A worker that ends in the middle must not look like an answer that is complete.
            self._log["outcome"] = "broken off"
            raise server_error(self._request_id)

    def close(self) -> None:
        """End what is still running, give the worker's place back, and stop listening to the client."""
        self._hang_up.close()
        self.abandon()

    def abandon(self) -> None:
        """End what is still running and give the worker's place back; another worker may take over."""
        self._call.cancel()
        self._worker.in_flight -= 1

    def _complete(self, usage: pb.Usage) -> None:
        self._log.update(
            outcome="complete", prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
        )

    def _gone(self) -> BaseException:
        if self._hang_up.happened:
            self._log["completion_tokens"] = self._produced
            return ClientGoneError()
        return asyncio.CancelledError()


async def open_answer(request: Request, chat: ChatRequest, workers: Workers, *, seconds: float | None) -> Answer:
    """Begin an answer on the best worker, and wait up to `seconds` (None: as long as it takes) for its beginning.

    A worker that turns out to be unavailable before it began is replaced by another one, once. Raises ApiError,
    ClientGoneError.
    """
    hang_up = HangUp(request.receive)
    failed: Worker | None = None
    try:
        while True:
            worker = workers.choose(chat.generate.model, but=failed)
            call = worker.client.generate(chat.generate, request_id=request.state.request_id)
            hang_up.stops(call.cancel)
            answer = Answer(request, chat, worker, call, hang_up)
            try:
                await answer.begin(seconds=seconds)
            except grpc.aio.AioRpcError as error:
                answer.abandon()
                may_move = failed is None and error.code() is grpc.StatusCode.UNAVAILABLE
                if not may_move or not workers.has_another(chat.generate.model, but=worker):
                    raise from_rpc(error, request_id=request.state.request_id) from error
                failed = worker
            except BaseException:
                answer.abandon()
                raise
            else:
                return answer
    except BaseException as error:
        hang_up.close()
        if isinstance(error, ApiError):
            request.state.log["outcome"] = "refused"
        raise
