"""Systems for fault tests, and the end of connections that tests leave open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.connection import Connection
from tests.faults.system import System, running_system


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Close the connections that a failed test leaves open."""
    yield
    await Connection.disconnect_all()


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Run a worker and a gateway."""
    async with running_system(tmp_path) as running:
        yield running


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[System]:
    """Run two workers behind a gateway."""
    async with running_system(tmp_path, workers=2) as running:
        yield running
