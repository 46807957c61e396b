"""A gateway with low limits, which each test must leave unharmed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.edge.gateway_state import has_connections
from tests.faults.edge.limits import MAX_CONNECTIONS, SETTINGS
from tests.faults.system import System, running_system, unharmed_system
from tests.support.waits import until


@pytest.fixture(scope="package")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(
        tmp_path_factory.mktemp("edge"), slots=2 * MAX_CONNECTIONS, gateway_settings=SETTINGS
    ) as running:
        yield running


@pytest.fixture(autouse=True)
async def is_unharmed(system: System) -> AsyncIterator[None]:
    """Check that a good client is served before and after a test, and that no request or connection remains."""
    async with unharmed_system(system):
        yield
    await until(lambda: has_connections(system.gateway, 0), what="all connections are closed")
