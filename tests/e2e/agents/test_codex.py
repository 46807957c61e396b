"""Codex works with the configuration that the page shows: it calls a tool, reads its result, and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.agents.codex import Codex
from tests.support.agent_system import AFTER_CALL, AFTER_SECOND_TURN, MODEL, PRINTED, SECOND_TURN, AgentSystem
from tests.support.repository import ROOT

pytestmark = [pytest.mark.agents, pytest.mark.timeout(300)]
SHOWN = ROOT / "services/gateway/site/content/examples/codex.toml"
# A test runs as root, and in a container, where Codex's sandbox cannot be set up.
SANDBOX = 'sandbox_mode = "danger-full-access"\n'


@pytest.mark.parametrize("prefix", ["/api", "/v1"])
async def test_codex_takes_two_turns_with_the_configuration_that_the_page_shows(
    agent_system: AgentSystem, tmp_path: Path, prefix: str
) -> None:
    shown = SHOWN.read_text().replace("__BASE_URL__", agent_system.url + prefix).replace("__TOOLS_MODEL__", MODEL)
    codex = Codex(tmp_path, SANDBOX + shown, agent_system.api_key)
    first = await asyncio.to_thread(codex.run, "Run a command that prints a word.")
    assert first.problems() == [], first.error_output
    (command,) = first.items("command_execution")
    assert (command["exit_code"], command["aggregated_output"].strip()) == (0, PRINTED)
    assert [message["text"] for message in first.items("agent_message")] == [AFTER_CALL]
    second = await asyncio.to_thread(codex.run, f"{SECOND_TURN}: go on", thread=first.thread_id)
    assert second.problems() == [], second.error_output
    assert [message["text"] for message in second.items("agent_message")] == [AFTER_SECOND_TURN]
