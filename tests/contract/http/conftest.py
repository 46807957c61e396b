"""A real gateway process in front of a scripted worker, with a real Valkey."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.stack.ports import free_ports
from tests.contract.http.scripted_worker import MODEL, ScriptedWorker, scripted_worker
from tests.valkey import running_valkey

ROOT = Path(__file__).parents[3]
EXPECTED = "expected-model"


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the condition is another process's state
            await asyncio.sleep(0.02)


@contextmanager
def running_gateway(
    redis_url: str, workers: str, log: Path, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start one, and hand over its address and process."""
    port = free_ports(1)[0]
    environment = {
        "VILIX_PORT": str(port),
        "VILIX_REDIS_URL": redis_url,
        # A loaded machine may take long to switch between processes.
        "VILIX_REDIS_TIMEOUT": "5",
        "VILIX_INFERENCE_WORKERS": workers,
        "VILIX_EXPECTED_MODELS": f"{MODEL},{EXPECTED}",
        "VILIX_MAX_BODY_BYTES": "100000",
        "VILIX_EARLY_COMMIT": "0.5",
        "VILIX_KEEP_ALIVE": "0.2",
        **settings,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.gateway"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
async def api_key(redis_url: str) -> str:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="tests")
        return secret


@pytest.fixture(scope="session")
def worker_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def worker(worker_port: int) -> AsyncIterator[ScriptedWorker]:
    async with scripted_worker(worker_port) as worker:
        yield worker


@pytest.fixture(scope="session")
def gateway_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway") / "gateway.log"


@pytest.fixture(scope="session")
def gateway_url(redis_url: str, worker_port: int, gateway_log: Path) -> Iterator[str]:
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", gateway_log) as (url, _):
        yield url


@pytest.fixture
async def http(gateway_url: str, api_key: str, worker: ScriptedWorker) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key, of a gateway that has found the worker."""
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=gateway_url, headers=headers, timeout=20) as client:
        async with asyncio.timeout(20):
            # What the gateway remembers may be of the worker of the test before.
            await worker.listed.wait()
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)
        yield client
