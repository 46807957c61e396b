"""Clients that use little processor time themselves, so that a benchmark measures the servers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc
import orjson
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from bench.gateway.system import INSTANT, MODEL, STEPLESS
from services.stack.ports import LOOPBACK

_END = b"data: [DONE]"
_SILENCE_SECONDS = 60.0


def _model(word: str) -> str:
    # With steps, the time to the first token would be the rest of the step during which the request arrives.
    return STEPLESS if word == INSTANT else MODEL


@dataclass
class HttpClient:
    """A client of OpenAI's API under /v1, with one connection that stays open between requests."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    api_key: str

    @classmethod
    async def connect(cls, port: int, api_key: str) -> HttpClient:
        """Connect to a gateway on `port`."""
        return cls(*await asyncio.open_connection(LOOPBACK, port), api_key)

    async def stream(self, word: str) -> tuple[float, int]:
        """Read a streamed response to its end: return the seconds to the first token, and the number of text chunks."""
        body = orjson.dumps({"model": _model(word), "stream": True, "messages": [{"role": "user", "content": word}]})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {self.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self.writer.write(head.encode() + body)
        first, chunks, tail = 0.0, 0, b""
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                data = await self.reader.read(1 << 16)
            if not data or b'"error"' in data:
                raise ConnectionError(f"the stream ended early: {data.decode()}")
            chunks += data.count(b'"content":"')
            if chunks and not first:
                first = time.perf_counter() - began
            tail = (tail + data)[-64:]
            # The end of the chunked body follows in the same write, or in the next one.
            if _END in tail and tail.endswith(b"0\r\n\r\n"):
                return first, chunks

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


class DirectClient:
    """A client of the worker's gRPC service, as internal services use it."""

    def __init__(self, target: str) -> None:
        """Connect to the worker at `target`, which is HOST:PORT."""
        self._channel = grpc.aio.insecure_channel(target)
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(self._channel)

    async def first_token(self, word: str) -> float:
        """Return the seconds to the first token of a response, which is read to its end."""
        message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=word)])
        began = time.perf_counter()
        first = 0.0
        async for response in self._stub.Generate(pb.GenerateRequest(model=_model(word), messages=[message])):
            if not first and any(event.HasField("delta") for event in response.events):
                first = time.perf_counter() - began
        return first

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()
