"""POST /chat/completions and /completions: a request's whole way through the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.answer import Answer, open_answer
from services.gateway.dependencies import dependencies, note_model
from services.gateway.dialects import sse
from services.gateway.dialects.ignored_header import IGNORED_HEADER, ignored_header
from services.gateway.dialects.openai_chat.chat_objects import WholeAnswer
from services.gateway.dialects.openai_chat.chat_request import ChatRequest, measured, translate
from services.gateway.dialects.openai_completions.text_objects import TextEncoder, WholeText
from services.gateway.dialects.openai_completions.text_request import translate_text
from services.gateway.edge.body import read_json
from services.gateway.edge.direct_writer import DIRECT_WRITER, DirectWriter
from services.gateway.edge.hang_up import ClientGoneError
from services.gateway.endpoints.prompts import dry_run
from services.gateway.errors import JSON, ApiError
from services.gateway.routing.generate_stream import Write
from services.gateway.tenancy.admission import Waiting, admit, refuse_early
from services.gateway.tenancy.auth import recognise
from services.gateway.tenancy.demand import Demand, demand_of


async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    images = dependencies(request).image_limits
    return await _create(request, partial(translate, image_limits=images))


async def create_completion(request: Request) -> Response:
    """Continue a text, whole or as a stream."""
    return await _create(request, translate_text)


async def _create(request: Request, translate_body: Callable[..., ChatRequest]) -> Response:
    gateway = dependencies(request)
    caller = await recognise(request, gateway.keyring)
    strict = request.headers.get("x-strict-params") == "true"
    understand = partial(
        _understand, translate_body, refuse_ignored=strict, reserve_output=gateway.settings.reserve_output
    )
    chat, demand = await read_json(
        request,
        understand,
        max_bytes=gateway.settings.max_body_bytes,
        budget=gateway.bodies,
        key_id=caller.key.id,
        before_large=partial(refuse_early, request, caller),
    )
    note_model(request, chat.generate.model)
    request.state.log["stream"] = chat.stream
    if chat.dry_run:
        return await dry_run(request, caller, chat, demand)
    admission = await admit(request, caller, demand, gateway.workers)
    if isinstance(admission, Waiting) and chat.stream:
        return QueuedAnswer(request, chat, admission, keep_alive=gateway.settings.keep_alive)
    lease = await admission.get()
    patience = gateway.settings.early_commit if chat.stream else None
    answer = await open_answer(request, chat, lease, gateway.workers, seconds=patience)
    headers = {**lease.headers, **ignored_header(answer.ignored_parameters)}
    if chat.stream:
        return StreamedAnswer(answer, headers, keep_alive=gateway.settings.keep_alive)
    # The answer may take long, and does not need what was asked.
    del chat
    return await _whole(answer, headers)


def _understand(
    translate_body: Callable[..., ChatRequest], body: Any, *, refuse_ignored: bool, reserve_output: int
) -> tuple[ChatRequest, Demand]:
    chat = measured(translate_body(body, refuse_ignored=refuse_ignored))
    return chat, demand_of(chat.generate, reserve_output=reserve_output)


class StreamedAnswer(Response):
    """Sends an answer as Server-Sent Events: one send for all that is ready, straight to the server."""

    def __init__(self, answer: Answer | None, headers: dict[str, str], *, keep_alive: float) -> None:
        """`keep_alive` is how many seconds of silence are broken by a comment line."""
        super().__init__(headers={**sse.HEADERS, **headers})
        del self.headers["content-length"]
        self._answer = answer
        self._keep_alive: Final = keep_alive
        self._last_sent = 0.0
        self._writer: DirectWriter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, and end the answer however that goes."""
        keeping_alive: asyncio.Task[None] | None = None
        self._writer = scope.get("extensions", {}).get(DIRECT_WRITER)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # Without a first byte, proxies and clients may wait with the headers too.
            self._last_sent = time.monotonic()
            keeping_alive = asyncio.create_task(self._break_silence(send))
            async for data in self._data():
                self._last_sent = time.monotonic()
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except ClientGoneError:
            pass
        finally:
            if self._answer is not None:
                self._answer.close()
            if keeping_alive is not None:
                keeping_alive.cancel()

    async def _data(self) -> AsyncIterator[bytes]:
        answer = self._answer
        assert answer is not None  # noqa: S101  # it is there, or was waited for
        encoder_class = sse.ChunkEncoder if answer.chat.text is None else TextEncoder
        encoder = encoder_class(answer.chat, answer_id=answer.id, created=answer.created)
        answer.offer_tokens_to(partial(self._take, encoder))
        try:
            async for events in answer.events():
                if answer.ended_by is not None:
                    encoder.note(answer.ended_by)
                data = encoder.encode(events)
                if events[0].HasField("started"):
                    data = self._late_ignored(answer) + data
                if events[-1].HasField("usage"):
                    data += sse.DONE
                if data:
                    yield data
        except ApiError as error:
            await answer.settle()
            yield sse.error_event(error.body())

    def _late_ignored(self, answer: Answer) -> bytes:
        """What the headers do not say, because they were sent before the worker had said it."""
        names = ignored_header(answer.ignored_parameters).get(IGNORED_HEADER, "")
        return b"" if names == self.headers.get(IGNORED_HEADER, "") else sse.ignored(names)

    def _take(self, encoder: sse.ChunkEncoder | TextEncoder, events: Sequence[pb.Event]) -> Write | None:
        if self._writer is None or not self._writer.ready:
            return None
        if data := encoder.encode(events):
            self._last_sent = time.monotonic()
        return partial(self._writer.write, data)

    async def _break_silence(self, send: Send) -> None:
        while True:
            silent = time.monotonic() - self._last_sent
            if silent >= self._keep_alive:
                self._last_sent = time.monotonic()
                await send({"type": "http.response.body", "body": sse.KEEP_ALIVE, "more_body": True})
            await asyncio.sleep(max(self._last_sent + self._keep_alive - time.monotonic(), 0))


class QueuedAnswer(StreamedAnswer):
    """A streamed answer whose request first waits for a slot of its key. What goes wrong meanwhile is an error event."""

    def __init__(self, request: Request, chat: ChatRequest, waiting: Waiting, *, keep_alive: float) -> None:
        """`keep_alive` is as above."""
        super().__init__(None, {**waiting.headers, **ignored_header(chat.ignored)}, keep_alive=keep_alive)
        self._request: Final = request
        self._chat: ChatRequest | None = chat
        self._waiting: Final = waiting

    async def _data(self) -> AsyncIterator[bytes]:
        try:
            async for place in self._waiting.places():
                yield sse.queued(place)
            lease, workers = await self._waiting.get(), dependencies(self._request).workers
            chat, self._chat = self._chat, None
            assert chat is not None  # noqa: S101  # an answer is sent once
            self._answer = await open_answer(self._request, chat, lease, workers, seconds=None)
            del chat
        except ClientGoneError:
            self._request.state.log["outcome"] = "client gone"
            raise
        except ApiError as error:
            self._request.state.log.setdefault("outcome", "refused" if error.status < 500 else "failed")
            yield sse.error_event(error.body())
            return
        async for data in super()._data():
            yield data


async def _whole(answer: Answer, headers: dict[str, str]) -> Response:
    whole_class = WholeAnswer if answer.chat.text is None else WholeText
    whole = whole_class(answer.chat, answer_id=answer.id, created=answer.created)
    try:
        async for events in answer.events():
            for event in events:
                whole.add(event)
        if answer.ended_by is not None:
            whole.note(answer.ended_by)
    except ApiError:
        await answer.settle()
        raise
    finally:
        answer.close()
    return Response(orjson.dumps(whole.to_object()), headers=headers, media_type=JSON)
