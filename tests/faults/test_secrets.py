"""Keys never leak: canaries that are sent in all parts of requests appear in no output."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import orjson
import psutil
import pytest
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.tenancy.secret import draw
from tests.faults.chat_stream import MODEL, body, read
from tests.faults.connection import Connection
from tests.faults.everything import ADMIN_TOKEN, Everything, running_everything, tracebacks_in
from tests.faults.malformed import exchange
from tests.faults.recordings import LONG
from tests.faults.system import running_system
from tests.support.fault_table import record
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

STRANGE: Final = draw("s00")
"""A well-formed key that does not exist."""
MISTYPED: Final = f"{STRANGE[:-1]}{'a' if STRANGE[-1] != 'a' else 'b'}"
CONTENT: Final = "canary-of-content-5f0c"
"""Part of prompts. Responses to its sender may contain it, but logs, metrics and databases must not."""
SETTINGS: Final = {"VILIX_REDIS_TIMEOUT": "0.5", "VILIX_HEADER_SECONDS": "1", "VILIX_BODY_SECONDS": "1"}
_MISTAKE: Final = """
from services.gateway.endpoints import models, post


def quotes_the_request(request, *arguments):
    raise RuntimeError(f"cannot serve {request.headers['authorization']}: {dict(request.headers)} {arguments}")


models._authenticate = post.serve = quotes_the_request
"""
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Harvest:
    """The responses to clients."""

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        self.statuses: set[int] = set()

    def add(self, response: bytes) -> None:
        self.responses.append(response)
        self.statuses |= {int(status) for status in _STATUS.findall(response)}


@pytest.fixture
async def everything(tmp_path: Path) -> AsyncIterator[Everything]:
    async with running_everything(tmp_path, gateway_settings=SETTINGS) as running:
        yield running


async def test_keys_appear_in_no_output(everything: Everything) -> None:
    system, harvest = everything.system, Harvest()
    secrets = (system.api_key, STRANGE, MISTYPED)
    await requests_with_keys_everywhere(everything, secrets, harvest)
    await calls_with_keys(everything, secrets)
    assert {200, 400, 401, 404, 413} <= harvest.statuses
    leaks = [await hits(everything, secrets)]
    await killed_in_the_middle(everything, secrets, harvest)
    await without_redis(everything, secrets, harvest)
    assert 503 in harvest.statuses
    leaks.append(await hits(everything, secrets))
    responses = b"\n".join(harvest.responses)
    leaks.append(
        {f"responses ({secret})": around(secret, responses) for secret in secrets if secret.encode() in responses}
    )
    assert leaks == [{}, {}, {}]
    # Keys in the wrong place are rejected or ignored, and cause no internal error.
    assert 500 not in harvest.statuses
    assert everything.tracebacks() == {}
    record(
        "Keys never leak",
        "0 hits in logs, metrics, errors, Redis and its files, command lines and environments",
        f"0 hits after {len(harvest.responses)} responses ({', '.join(map(str, sorted(harvest.statuses)))})",
        met=True,
    )


async def test_an_exception_that_quotes_a_key_is_logged_without_the_key(tmp_path: Path) -> None:
    """The gateway is patched so that its handlers raise such an exception."""
    (tmp_path / "mistake").mkdir()
    (tmp_path / "mistake" / "sitecustomize.py").write_text(_MISTAKE)
    settings = {"PYTHONPATH": str(tmp_path / "mistake")}
    async with running_system(tmp_path, gateway_settings=settings) as system:
        for method, path in (("GET", "/models"), ("POST", "/chat/completions")):
            content = orjson.dumps({**body(), "model": STRANGE}) if method == "POST" else None
            response = await system.client().request(method, path, content=content)
            assert response.status_code == 500
            assert STRANGE not in response.text
            assert system.api_key not in response.text
        await until(lambda: len(list(tracebacks_in(system.gateway.log.read_text()))) == 2, what="both are in the log")
        log = system.gateway.log.read_text()
        assert all("RuntimeError: cannot serve Bearer vlx_…" in each for each in tracebacks_in(log))
        assert [around(key, log.encode()) for key in (system.api_key, STRANGE) if key in log] == []


async def requests_with_keys_everywhere(everything: Everything, secrets: Iterable[str], harvest: Harvest) -> None:
    """Send keys in headers, targets and bodies, in valid and malformed requests, with and without a valid key."""
    system = everything.system
    for key in secrets:
        for authorization in (system.api_key, key):
            for target, content in bodies(key):
                for query in ("", f"?api_key={key}"):
                    whole = post(target + query, authorization, content)
                    harvest.add(await exchange(system.gateway.address, [whole]))
        for raw in malformed(key, system.api_key):
            harvest.add(await exchange(system.gateway.address, [raw]))
        for raw in administrative(key):
            harvest.add(await exchange(everything.admin_address, [raw]))


def bodies(key: str) -> list[tuple[str, bytes]]:
    """Return requests with a key in a field or in place of one."""
    chats: list[Any] = [
        {**body(stream=False), "user": key, "metadata": {"key": key}},
        body(stream=False, messages=[{"role": "user", "content": f"{CONTENT} {key}"}]),
        body(messages=[{"role": "user", "content": f"{CONTENT} {key}"}]),
        {**body(), "model": key},
        {**body(), key: key},
        body(messages=[{"role": key, "content": CONTENT}]),
        body(messages=[{"role": "user", "content": CONTENT, "name": key * 10}]),
        body(messages=[{"role": "user", "content": [{"type": key}]}]),
        body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"https://{key}/"}}]}]),
        body(tools=[{"type": "function", "function": {"name": key}}]),
        body(tool_choice=key),
        body(stop=[key] * 5),
        body(response_format={"type": key}),
        body(reasoning_effort=key),
        body(chat_template_kwargs={key: key}),
        body(logit_bias={key: 1}),
        body(temperature=key),
        body(max_tokens=key),
        key,
        [key],
    ]
    embeddings: list[Any] = [
        {"model": EMBEDDING_MODEL, "input": f"{CONTENT} {key}"},
        {"model": key, "input": CONTENT},
        {"model": EMBEDDING_MODEL, "input": CONTENT, key: 1},
        {"model": EMBEDDING_MODEL, "input": CONTENT, "encoding_format": key},
        {"model": EMBEDDING_MODEL, "input": [1, key]},
    ]
    return [
        *(("/api/chat/completions", orjson.dumps(chat)) for chat in chats),
        *(("/api/embeddings", orjson.dumps(embedding)) for embedding in embeddings),
        ("/v1/chat/completions", f'{{"model": "{key}", "messages": {key}'.encode()),
        ("/api/chat/completions", f'"{key}"'.encode() + b" " * 21 * 2**20),
        (f"/api/{key}", b"{}"),
        (f"/{key}/chat/completions", b"{}"),
    ]


def malformed(key: str, api_key: str) -> list[bytes]:
    """Return malformed requests, and requests with a key where none belongs."""
    head = "GET /api/models HTTP/1.1\r\nHost: test\r\n"
    heads = (
        f"{head}Authorization: {key}\r\n\r\n",
        f"{head}Authorization: Basic {key}\r\n\r\n",
        f"{head}Authorization: Bearer {key} {key}\r\n\r\n",
        f"{head}Authorization: Bearer {key}\x01\r\n\r\n",
        f"{head}Authorization Bearer {key}\r\n\r\n",
        f"{head}Author\x00ization: Bearer {key}\r\n\r\n",
        f"{head}Authorization: Bearer\r\n {key}\r\n\r\n",
        f"{head}{key}: {key}\r\nX-Api-Key: {key}\r\nCookie: key={key}\r\n\r\n",
        f"{head}X-Request-Id: {key}\r\nOrigin: https://{key}\r\nUser-Agent: {key}\r\nReferer: {key}\r\n\r\n",
        f"{head}X-Request-Id: {key}\r\nAuthorization: Bearer {api_key}\r\n\r\n",
        f"{head}Content-Length: {key}\r\n\r\n",
        f"{head}Transfer-Encoding: {key}\r\n\r\n",
        f"{head}X-Long: {key * 1000}\r\n\r\n",
        f"{key} /api/models HTTP/1.1\r\nHost: test\r\n\r\n",
        f"GET /api/models {key}\r\nHost: test\r\n\r\n",
        f"GET http://{key}@test/api/models HTTP/1.1\r\nHost: {key}\r\n\r\n",
        f"GET /api/models/{key} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {api_key}\r\n\r\n",
        f"PUT /api/models/{key}?{key}#{key} HTTP/1.1\r\nHost: test\r\n\r\n",
        f"CONNECT {key}:443 HTTP/1.1\r\nHost: {key}\r\n\r\n",
        f"OPTIONS /{key} HTTP/1.1\r\nHost: test\r\nOrigin: {key}\r\nAccess-Control-Request-Method: {key}\r\n\r\n",
    )
    return [text.replace("\r\nHost", "\r\nConnection: close\r\nHost").encode("latin-1") for text in heads]


def administrative(key: str) -> list[bytes]:
    """Return requests to the admin API with a key in place of its credential and in invalid fields."""
    keys = "/admin/v1/keys"
    return [
        post(keys, key, b"{}"),
        post(f"{keys}?token={key}", ADMIN_TOKEN, orjson.dumps({"name": key * 10})),
        post(keys, ADMIN_TOKEN, orjson.dumps({"name": "a", "limits": {"rpm": key}})),
        post(keys, ADMIN_TOKEN, orjson.dumps({"name": "a", key: key})),
        post(keys, ADMIN_TOKEN, key.encode()),
        post(f"{keys}/{key}/rotate", ADMIN_TOKEN, b"{}"),
    ]


async def calls_with_keys(everything: Everything, secrets: Iterable[str]) -> None:
    """Send keys over gRPC, which does not use them."""
    async with grpc.aio.insecure_channel(everything.system.worker.address) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        for key in secrets:
            metadata = (("authorization", f"Bearer {key}"), ("x-request-id", key), (key.lower(), key))
            for request in (
                pb.GenerateRequest(model=key, prompt=CONTENT),
                pb.GenerateRequest(model=MODEL, prompt=f"{CONTENT} {key}", tenant=key),
                pb.GenerateRequest(model=MODEL, prompt=CONTENT, tenant=key * 10),
                pb.GenerateRequest(model=MODEL, messages=[pb.Message(role=99, name=key)]),
            ):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async for _ in stub.Generate(request, metadata=metadata, timeout=30):
                        pass


async def killed_in_the_middle(everything: Everything, secrets: Iterable[str], harvest: Harvest) -> None:
    """Kill the worker during streams, send requests without a worker, and kill the gateway during a stream."""
    system = everything.system
    streams = []
    for key in secrets:
        question = {"role": "user", "content": f"{LONG} please {CONTENT} {key}"}
        streams.append(await Connection.ask(system, body(messages=[question])))
        await streams[-1].until(b"data: ")
    system.worker.kill()
    for stream in streams:
        async with asyncio.timeout(20):
            harvest.add(await stream.reader.readuntil(b"\r\n0\r\n\r\n"))
        stream.disconnect()
    for key in secrets:
        for target, content in bodies(key)[:3]:
            harvest.add(await exchange(system.gateway.address, [post(target, system.api_key, content)]))
    system.worker.start()
    await everything.wait_until_ready()
    begun = asyncio.Event()
    cut = asyncio.create_task(read(system.client(), LONG, begun=begun))
    async with asyncio.timeout(30):
        await begun.wait()
    system.gateway.kill()
    with pytest.raises(httpx.TransportError):
        await cut
    system.gateway.start()
    await everything.wait_until_ready()


async def without_redis(everything: Everything, secrets: Iterable[str], harvest: Harvest) -> None:
    """Send keys while Redis is frozen, and after it was killed."""
    system = everything.system

    async def ask() -> None:
        for key in secrets:
            for target, content in bodies(key)[:4]:
                harvest.add(await exchange(system.gateway.address, [post(target, key, content)]))
            harvest.add(await exchange(everything.admin_address, [administrative(key)[-1]]))

    with system.valkey.frozen():
        await ask()
    system.valkey.kill()
    await ask()
    system.valkey.start()
    await until(lambda: _answers(system.redis_url), what="valkey answers")


async def hits(everything: Everything, secrets: Iterable[str]) -> dict[str, str]:
    """Return the outputs that contain a secret, with the text around it."""
    leaks: dict[str, str] = {}
    outputs = {f"log of {name}": log.read_bytes() for name, log in everything.logs.items()}
    async with httpx.AsyncClient() as client:
        for name, address in everything.metrics.items():
            outputs[f"metrics of {name}"] = (await client.get(f"http://{address}/metrics")).content
    outputs["redis"] = await dump(everything.system.redis_url)
    for path in (everything.system.directory / "valkey").rglob("*"):
        if path.is_file():
            outputs[f"file of valkey: {path.name}"] = path.read_bytes()
    for name, pid in everything.pids.items():
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            outputs[f"command line of {name} ({process.pid})"] = " ".join(process.cmdline()).encode()
            # Only this secret is passed in a variable, and only to the process that needs it.
            environment = {k: v for k, v in process.environ().items() if (name, k) != ("gateway0", "VILIX_ADMIN_TOKEN")}
            outputs[f"environment of {name} ({process.pid})"] = repr(environment).encode()
    for secret in (*secrets, CONTENT, ADMIN_TOKEN):
        leaks |= {name: around(secret, content) for name, content in outputs.items() if secret.encode() in content}
    return leaks


async def dump(url: str) -> bytes:
    """Return every key of Redis with its content."""
    readers = {
        "string": "GET",
        "hash": "HGETALL",
        "list": "LRANGE",
        "set": "SMEMBERS",
        "zset": "ZRANGE",
        "stream": "XRANGE",
    }
    arguments = {"list": (0, -1), "zset": (0, -1, "WITHSCORES"), "stream": ("-", "+")}
    lines = []
    async with Redis.from_url(url) as redis:
        async for name in redis.scan_iter():
            kind = (await redis.type(name)).decode()
            content = await redis.execute_command(readers[kind], name, *arguments.get(kind, ()))
            lines.append(f"{name!r} {kind} {content!r}".encode())
    assert lines
    return b"\n".join(lines)


def around(secret: str, content: bytes) -> str:
    """Return the text around a secret."""
    offset = content.find(secret.encode())
    return content[max(0, offset - 300) : offset + 200].decode(errors="replace")


def post(target: str, key: str, content: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def _answers(url: str) -> bool:
    async with Redis.from_url(url) as redis:
        try:
            return bool(await redis.ping())
        except Exception:  # noqa: BLE001  # any error means that it is not ready yet
            return False
