"""Readiness probes, one per protocol. A probe returns False while the process does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.stack.ports import LOOPBACK

PROBE_SECONDS = 1.0


async def redis_answers(port: int, password: str | None = None) -> bool:
    """Whether a Redis or Valkey on `port` answers PING, after authentication with `password` if there is one."""
    login = f"AUTH {password}\r\n".encode() if password else b""
    return b"+PONG" in await _exchange(port, login + b"PING\r\n", until=b"+PONG\r\n")


async def http_ok(port: int, path: str) -> bool:
    """Whether GET `path` on `port` returns status 200."""
    status_line = await _exchange(port, _get(port, path), until=b"\r\n")
    return status_line.split(b" ")[1:2] == [b"200"]


async def all_models_available(port: int) -> bool:
    """Whether the gateway on `port` has a worker for every model that it expects."""
    response = await _exchange(port, _get(port, "/healthz"), until=b"}}")
    try:
        models = json.loads(response.partition(b"\r\n\r\n")[2])["models"]
    except (KeyError, ValueError):
        return False
    return all(models.values())


async def grpc_serving(port: int, service: str) -> bool:
    """Whether the health service on `port` reports SERVING for `service`."""
    # Each probe opens a connection, because a shared one backs off longer after each failed attempt.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # its types miss it
                health_pb2.HealthCheckRequest(service=service), timeout=PROBE_SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _get(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n".encode()


async def _exchange(port: int, request: bytes, *, until: bytes) -> bytes:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                return await reader.readuntil(until)
            finally:
                writer.close()
    return b""
