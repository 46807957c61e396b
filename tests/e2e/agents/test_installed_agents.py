"""Coding agents are installed unmodified, and the recorded turns are played for their tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.agents.codex import CODEX
from tests.support.agent_system import (
    AFTER_CALL,
    AFTER_SECOND_TURN,
    AGENTS,
    MODEL,
    PRINTED,
    SECOND_TURN,
    AgentSystem,
)
from tests.support.repository import ROOT

CLAUDE = AGENTS / "@anthropic-ai/claude-code-linux-x64/claude"


@pytest.mark.agents
@pytest.mark.parametrize(
    ("package", "program"), [("@openai/codex", CODEX), ("@anthropic-ai/claude-code", CLAUDE)], ids=["codex", "claude"]
)
def test_the_locked_agent_runs(package: str, program: Path, tmp_path: Path) -> None:
    locked = json.loads(Path(ROOT / "tests/e2e/agents/package.json").read_text())["dependencies"][package]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(
        [program, "--version"], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert locked in printed


@pytest.mark.parametrize("tool", ["exec_command", "Bash"])
async def test_a_turn_calls_the_agents_tool_and_the_next_one_reads_its_result(
    agent_system: AgentSystem, tool: str
) -> None:
    function: dict[str, Any] = {"name": tool, "parameters": {"type": "object"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Run a command"}]
    headers = {"Authorization": f"Bearer {agent_system.api_key}"}
    async with httpx.AsyncClient(base_url=f"{agent_system.url}/v1", headers=headers, timeout=60) as client:

        async def ask() -> dict[str, Any]:
            body = {"model": MODEL, "messages": messages, "tools": [{"type": "function", "function": function}]}
            response = await client.post("/chat/completions", json=body)
            assert response.status_code == 200, response.text
            message: dict[str, Any] = response.json()["choices"][0]["message"]
            messages.append(message)
            return message

        (call,) = (await ask())["tool_calls"]
        assert call["function"]["name"] == tool
        assert PRINTED in call["function"]["arguments"]
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": PRINTED})
        assert (await ask())["content"] == AFTER_CALL
        messages.append({"role": "user", "content": f"{SECOND_TURN}: go on"})
        assert (await ask())["content"] == AFTER_SECOND_TURN
