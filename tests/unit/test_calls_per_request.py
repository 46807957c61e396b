"""A guard of the cost of a short request: the calls that it takes from the bytes of the client to those for it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
import uvicorn
from uvicorn.server import ServerState
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.app import Shortcut
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.edge.access import Access
from services.gateway.edge.body_budget import BodyBudget
from services.gateway.edge.http_protocol import LimitedProtocol, protocol_for
from services.gateway.endpoints.api_route import ApiRoute
from services.gateway.endpoints.post import Post
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.limits import ImageLimits
from services.gateway.live_requests import LiveRequests
from services.gateway.operations.generate import GenerateEndpoint
from services.gateway.operations.inference_parts import inference_parts
from services.gateway.redis.link import RedisLink
from services.gateway.redis.pipeline import PipelinedRedis, _Pipeline
from services.gateway.routing.aliases import Aliases
from services.gateway.routing.call_multiplexer import CallMultiplexer
from services.gateway.routing.fleet import Fleet
from services.gateway.routing.inference_client import (
    InferenceClient,
    InferencePool,
    InferenceWorker,
    Timeouts,
    inference_service,
)
from services.gateway.routing.pool import WorkerPool
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy.admission import AdmissionControl
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.key_cache import KeyCache
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.prices import Prices
from services.gateway.tenancy.receipts import Receipts
from services.gateway.tenancy.reservation import Reservations
from services.gateway.tenancy.secret import digest
from services.gateway.tenancy.tiers import Tiers
from services.gateway.wiring import Gateway
from tests.support.call_counter import counted

PATH = "/v1/chat/completions"
MODEL = "m"
SECRET = "vlx_" + "a" * 43
LIMITS = Limits(rpm=10**6, tpm=10**8, concurrency=10**4, daily_tokens=10**11, monthly_tokens=10**12)
REQUESTS = 20
MOST_OF_WHOLE = 1800
MOST_OF_STREAMED = 1820
"""The most calls of a request, those of the fake client, worker and Redis among them."""


class Redis:
    """A connection to a Redis that admits every request, and its transport."""

    def __init__(self) -> None:
        self._writer = SimpleNamespace(transport=self)
        self.protocol: Any = None
        scope = {"reserved": 12, "requests": 10**6 - 1, "requests_reset": 60, "tokens": 10**8 - 12, "tokens_reset": 60}
        admitted = json.dumps({"seconds": 1, "scopes": {"key": scope, "model": scope}})
        self._admitted, self._settled = (f"${len(each)}\r\n{each}\r\n".encode() for each in (admitted, "{}"))

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        reply = self._settled if b"settle" in data else self._admitted
        asyncio.get_running_loop().call_soon(self.protocol.data_received, reply)

    def abort(self) -> None:
        pass


class Rpc:
    """A stream to a worker that generates tokens at once, each in a message of its own."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[pb.GenerateManyResponse] = asyncio.Queue()

    async def read(self) -> pb.GenerateManyResponse:
        return await self._messages.get()

    async def write(self, message: pb.GenerateManyRequest) -> None:
        if not message.HasField("start"):
            return
        tokens = message.start.request.sampling.max_tokens
        for token in range(tokens):
            response = pb.GenerateManyResponse()
            if 0 < token < tokens - 1:
                response.contents.calls.append(message.call)
                response.contents.texts.append(" word")
                response.contents.token_counts.append(1)
            else:
                output = response.outputs.add(call=message.call)
                if not token:
                    output.events.add().started.prompt_tokens = 5
                output.events.add(delta=pb.Delta(content=" word", token_count=1))
                if token:
                    output.events.add().finish.reason = pb.FINISH_REASON_LENGTH
                    output.events.add().usage.MergeFrom(pb.Usage(prompt_tokens=5, completion_tokens=tokens))
                    response.outputs.add(call=message.call, status=b"")
            self._messages.put_nowait(response)

    def cancel(self) -> None:
        pass


class Client:
    """A client that sends requests over one connection, as the transport of the gateway's end of it."""

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self._received = bytearray()
        self._is_complete = asyncio.Event()
        transport: Any = self
        protocol.connection_made(transport)

    def get_extra_info(self, name: str) -> Any:
        address = ("127.0.0.1", 1)
        return MagicMock(getsockname=lambda: address, getpeername=lambda: address) if name == "socket" else None

    def write(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith((b"}}}", b"0\r\n\r\n")):
            self._is_complete.set()

    def is_closing(self) -> bool:
        return False

    def _ignore(self) -> None:
        pass

    write_eof = abort = pause_reading = resume_reading = get_write_buffer_size = close = _ignore

    async def send(self, request: bytes) -> bytes:
        """Send a request, and return the whole response."""
        self._received.clear()
        self._is_complete.clear()
        self._protocol.data_received(request)
        await self._is_complete.wait()
        return bytes(self._received)


def request_of(*, stream: bool, tokens: int) -> bytes:
    """Return the bytes of a request for a chat completion."""
    messages = [{"role": "user", "content": "Count to ten, please."}]
    body = json.dumps({"model": MODEL, "stream": stream, "max_tokens": tokens, "messages": messages})
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """Yield a client of a gateway with everything on, whose Redis and worker answer at once."""
    settings, connection, absent = GatewaySettings(), MagicMock(), MagicMock()
    connection._writer.transport = Redis()
    redis: Any = PipelinedRedis()
    redis._pipeline = _Pipeline(connection, reply_seconds=1)
    link = RedisLink(redis, timeout=1)
    key = Key(id="key-1", name="name", created=1, limits=LIMITS, model_limits={MODEL: LIMITS})
    key_cache = KeyCache(link, grace_seconds=60)
    key_cache._verified[digest(SECRET)] = (math.inf, key, Fingerprint(digest(SECRET), "record"))
    rpc: Any = Rpc()
    client = InferenceClient(MagicMock(), Timeouts(60, 600))
    client._multiplexer = CallMultiplexer(rpc)
    pool: InferencePool = WorkerPool(
        inference_service(Timeouts(60, 600)), (), endpoint="/", expected=(), resolve_seconds=1, connections=absent
    )
    pool._workers["worker"] = cast(
        InferenceWorker,
        SimpleNamespace(address="worker", client=client, models={MODEL: pb.Model(id=MODEL)}, in_flight=0),
    )
    prices, tiers = Prices(None), Tiers(None)
    reservations = Reservations(
        link,
        FallbackLimits(settings.redis_away_policy, lambda: 1),
        reservation_seconds=60,
        renew_seconds=10,
        reserve_output=settings.reserve_output,
        receipts=settings.receipts,
    )
    gateway = Gateway(
        settings,
        link,
        absent,
        key_cache,
        tiers,
        prices,
        AdmissionControl(link, key_cache, tiers, reservations, prices),
        Fleet(pool, absent),
        Aliases(link, {}),
        ImageFetcher(seconds=1),
        ImageLimits(),
        BodyBudget(total=10**6, per_key=10**6),
        LiveRequests(),
        absent,
        Receipts(link, most=settings.receipts),
        None,
        absent,
    )
    post: Any = Post(GenerateEndpoint(OpenAIChat(), inference_parts(gateway)), gateway)
    app = Access(Shortcut(absent, {PATH: ApiRoute(PATH, post)}), origins=())
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, proxy_headers=False)
    config.load()
    yield Client(protocol_for(settings)(config=config, server_state=ServerState(), app_state={}))
    await client.close()
    await gateway.image_fetcher.close()


@pytest.mark.parametrize(
    ("stream", "tokens", "most"), [(False, 8, MOST_OF_WHOLE), (True, 4, MOST_OF_STREAMED)], ids=["whole", "streamed"]
)
async def test_a_short_request_takes_few_calls(stream: bool, tokens: int, most: int) -> None:
    async with connected() as client:
        request = request_of(stream=stream, tokens=tokens)
        response = await client.send(request)
        assert response.startswith(b"HTTP/1.1 200 OK")
        assert response.count(b" word") == tokens
        with counted() as calls:
            for _ in range(REQUESTS):
                await client.send(request)
    assert calls() <= most * REQUESTS, calls() / REQUESTS
