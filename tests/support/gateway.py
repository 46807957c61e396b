"""A real gateway process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from services.stack.ports import free_ports
from tests.support.repository import ROOT
from tests.support.scripted_worker import MODEL
from tests.support.waits import until

START_SECONDS = 100.0
"""Long enough for a machine that other tests keep busy."""
EXPECTED = "expected-model"
"""A model that the gateway expects, but that no worker serves."""


@contextmanager
def running_gateway(
    redis_url: str, workers: str, log: Path, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a gateway, yield its URL and process, and stop it."""
    port = free_ports(1)[0]
    environment = {
        "VILIX_PORT": str(port),
        "VILIX_REDIS_URL": redis_url,
        # Redis may answer late on a loaded machine.
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


async def until_answered(url: str) -> None:
    """Wait until the gateway at `url` answers."""
    async with httpx.AsyncClient() as client:
        await until(lambda: _answers(client, f"{url}/healthz"), START_SECONDS, "the gateway answers")


async def until_ready(url: str) -> None:
    """Wait until the gateway at `url` has found a worker."""
    async with httpx.AsyncClient() as client:
        await until(lambda: has_model(client, url), START_SECONDS, what="the gateway has found a worker")


async def has_model(client: httpx.AsyncClient, url: str = "") -> bool:
    """Return whether the gateway at `url` answers, and some model is available."""
    try:
        response = await client.get(f"{url}/healthz", timeout=20)
    except httpx.TransportError:
        return False
    return response.status_code == 200 and any(response.json()["models"].values())


async def is_ready(client: httpx.AsyncClient, url: str = "") -> bool:
    """Return whether the gateway at `url` is ready, with or without models."""
    return await _answers(client, f"{url}/readyz")


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url, timeout=20)).status_code == 200
    except httpx.TransportError:
        return False
