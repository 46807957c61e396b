"""mTLS between real gateway and worker processes, whose certificates are replaced while they run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.tenancy import keys
from services.inference.servicer import SERVICE
from services.runtime.certificates import Certificates
from services.stack.ports import free_ports
from tests.contract.inference.conftest import REPLAY
from tests.support.certificates import Authority
from tests.support.gateway import has_model, is_ready, running_gateway
from tests.support.repository import ROOT
from tests.support.triton_servers import Server
from tests.support.valkey import running_valkey
from tests.support.waits import until
from tests.support.workers import Worker, running_inference_worker

NAME = "vilix-worker"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@contextmanager
def tls_worker(
    directory: Path, triton: Server, settings: dict[str, str], *, port: int = 0
) -> Iterator[tuple[Worker, str]]:
    """Yield a worker with the certificates in `directory`/worker, and the address of its health service."""
    health = f"127.0.0.1:{free_ports(1)[0]}"
    listen = {"listen": f"127.0.0.1:{port}"} if port else {}
    with running_inference_worker(
        directory,
        triton=triton.target,
        tls_dir=str(directory / "worker"),
        health_listen=health,
        **{**settings, "models": settings["models"].partition(",")[2]},
        **listen,
    ) as worker:
        yield worker, health


async def serving(health: str, service: str = SERVICE) -> None:
    async def is_serving() -> bool:
        async with grpc.aio.insecure_channel(health, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    await until(is_serving, seconds=30)


async def list_models(target: str, credentials: grpc.ChannelCredentials | None, *, name: str = NAME) -> list[str]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", name)]
    channel = (
        grpc.aio.secure_channel(target, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(target, options)
    )
    async with channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        return [model.id for model in (await stub.ListModels(pb.ListModelsRequest(), timeout=5)).models]


async def test_a_worker_serves_only_clients_with_a_certificate_of_its_ca(
    tmp_path: Path, authority: Authority, triton: Server, settings: dict[str, str]
) -> None:
    authority.issue(tmp_path / "worker", name=NAME)
    authority.issue(tmp_path / "caller", name="caller")
    Authority(tmp_path / "stranger-ca").issue(tmp_path / "stranger", name="caller")
    caller = Certificates(tmp_path / "caller").current()
    stranger = Certificates(tmp_path / "stranger").current()
    with tls_worker(tmp_path, triton, settings) as (worker, health):
        await serving(health)
        assert await list_models(worker.target, caller.channel_credentials()) == [REPLAY]
        rejected = {
            "nothing": None,
            "no certificate": grpc.ssl_channel_credentials(caller.ca),
            "another CA's": grpc.ssl_channel_credentials(caller.ca, stranger.key, stranger.certificate),
        }
        for what, credentials in rejected.items():
            with pytest.raises(grpc.aio.AioRpcError) as rejection:
                await list_models(worker.target, credentials)
            assert rejection.value.code() is grpc.StatusCode.UNAVAILABLE, what
        with pytest.raises(grpc.aio.AioRpcError):
            await list_models(worker.target, caller.channel_credentials(), name="another-name")


async def test_the_port_for_probes_has_no_tls_and_serves_only_health(
    tmp_path: Path, authority: Authority, triton: Server, settings: dict[str, str]
) -> None:
    authority.issue(tmp_path / "worker", name=NAME)
    with tls_worker(tmp_path, triton, settings) as (_, health):
        await serving(health, "liveness")
        await serving(health, "")
        with pytest.raises(grpc.aio.AioRpcError) as rejection:
            await list_models(health, None)
        assert rejection.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_certificates_are_replaced_under_a_running_stream(
    tmp_path: Path, authority: Authority, triton: Server, settings: dict[str, str]
) -> None:
    """The new certificates are of another CA: a worker that does not know the first CA rejects its certificates."""
    authority.issue(tmp_path / "worker", name=NAME)
    authority.issue(tmp_path / "gateway", name="gateway")
    (port,) = free_ports(1)
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.ExitStack()
        stack.enter_context(first)
        _, health = first.enter_context(tls_worker(tmp_path, triton, settings, port=port))
        await serving(health)
        http = await stack.enter_async_context(gateway(tmp_path, port))
        before = _certificate(port, tmp_path / "gateway")
        async with http.stream("POST", "/api/chat/completions", json=answer("slowly", stream=True)) as response:
            lines = response.aiter_lines()
            await anext(lines)
            another = Authority(tmp_path / "another-ca")
            another.issue(tmp_path / "worker", name=NAME)
            another.issue(tmp_path / "gateway", name="gateway")
            await until(functools.partial(_logged, tmp_path, "connected with the new certificate"), seconds=20)
            assert _certificate(port, tmp_path / "gateway") != before
            meanwhile = await http.post("/api/chat/completions", json=answer("quickly"))
            assert meanwhile.status_code == 200
            rest = [line async for line in lines if line]
        assert len(rest) > 20
        assert rest[-1] == "data: [DONE]"
        first.close()
        _, health = stack.enter_context(tls_worker(tmp_path, triton, settings, port=port))
        await serving(health)

        async def answers() -> bool:
            return (await http.post("/api/chat/completions", json=answer("quickly"))).status_code == 200

        await until(answers, seconds=20)


async def test_a_gateway_rejects_a_worker_with_another_name(
    tmp_path: Path, authority: Authority, triton: Server, settings: dict[str, str]
) -> None:
    authority.issue(tmp_path / "worker", name="somebody-else")
    authority.issue(tmp_path / "gateway", name="gateway")
    (port,) = free_ports(1)
    with tls_worker(tmp_path, triton, settings, port=port) as (_, health):
        await serving(health)
        async with gateway(tmp_path, port, ready=False) as http:
            for _ in range(5):
                assert not await has_model(http)
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("service", ["gateway", "inference"])
def test_invalid_certificates_are_reported_at_the_start(tmp_path: Path, service: str) -> None:
    variables = {"VILIX_TLS_DIR": str(tmp_path), "VILIX_MODELS": "a=b"}
    result = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert "VILIX_TLS_DIR" in result.stderr
    assert "ca.crt" in result.stderr
    assert "Traceback" not in result.stderr


@asynccontextmanager
async def gateway(directory: Path, worker_port: int, *, ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a gateway with the certificates in `directory`/gateway, connected to its worker."""
    valkey = directory / "valkey"
    valkey.mkdir(exist_ok=True)
    with running_valkey(valkey) as redis_url:
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            _, key = await keys.create(redis, name="tests")
        variables = {"VILIX_TLS_DIR": str(directory / "gateway"), "VILIX_RESOLVE_SECONDS": "0.2"}
        with running_gateway(redis_url, f"127.0.0.1:{worker_port}", directory / "gateway.log", **variables) as (url, _):
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
                await until(lambda: has_model(http) if ready else is_ready(http), seconds=30)
                yield http


def answer(how: str, **fields: Any) -> dict[str, Any]:
    """Request a recording; `slowly` takes seconds."""
    return {"model": REPLAY, "messages": [{"role": "user", "content": f"Speak {how} please"}], **fields}


async def _logged(directory: Path, text: str) -> bool:
    return text in (directory / "gateway.log").read_text()


def _certificate(port: int, directory: Path) -> bytes:
    """Return the certificate that the worker presents to a new client."""
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return shown
