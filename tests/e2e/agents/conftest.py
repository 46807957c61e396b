"""A system with recorded turns, which all tests of coding agents share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.agent_system import AgentSystem, running_agent_system


@pytest.fixture(scope="session")
async def agent_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentSystem]:
    async with running_agent_system(tmp_path_factory.mktemp("agents")) as system:
        yield system
